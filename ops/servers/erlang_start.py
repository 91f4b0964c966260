"""What the Erlang VM of a private RabbitMQ does first: it loads what RabbitMQ needs at once, and little that it does not.

RabbitMQ asks every module of every application that it knows for its attributes, which loads all 960 of them, one by one.
After this start it has loaded 740, most of them in few steps, for 0.6 of the CPU.
"""

from pathlib import Path
from typing import Final

from ops.servers.accounts import Account, own_file

FILE: Final = "start.erl"

#: Evaluated by `file:script`, which stops at the first error: RabbitMQ then starts as it does without this. Only its own
#: applications have attributes that it looks for, so the others are told to have no modules, which are loaded when they are
#: called. The two variables are for the VM that RabbitMQ starts to have an epmd: ours runs, so that VM ends at once.
SCRIPT: Final = """\
os:unsetenv("ERL_AFLAGS").
os:putenv("ERL_FLAGS", "-version").
Described = fun(App) ->
    {ok, [{application, App, Keys}]} = file:consult(code:where_is_file(atom_to_list(App) ++ ".app")),
    Keys
end.
Collected = fun Collect(App, Found) ->
    case lists:keymember(App, 1, Found) of
        true -> Found;
        false ->
            Keys = Described(App),
            lists:foldl(Collect, [{App, Keys} | Found], proplists:get_value(applications, Keys, []))
    end
end.
All = Collected(rabbit, []).
[application:load({application, App, lists:keystore(modules, 1, Keys, {modules, []})})
    || {App, Keys} <- All, not lists:prefix("rabbit", atom_to_list(App))].
IsWhole = fun(App) ->
    lists:prefix("rabbit", atom_to_list(App)) orelse lists:member(App, [kernel, stdlib, sasl, ra, mnesia])
end.
[code:ensure_modules_loaded(proplists:get_value(modules, Keys, [])) || {App, Keys} <- All, IsWhole(App)].
"""


def quick_start(home: Path, account: Account | None) -> dict[str, str]:
    """Write the script into `home`, the VM's working directory; gives the variables that have it evaluated."""
    own_file(home / FILE, SCRIPT, account)
    return {
        "ERL_AFLAGS": f"-run file script {FILE}",
        "ERL_FLAGS": "-start_epmd false",  # we supervise our own; one that the VM starts would outlive it
    }
