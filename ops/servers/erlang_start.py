"""How the Erlang VM of a private RabbitMQ starts quickly: it finds its modules at once, and loads little that it does not need.

Erlang looks for each module in one folder after the other. A start loads some 700 modules and passes the folders of all
seventy plugins on the way to most of them: it tries 50,000 files that are not there, which takes half of its CPU.

RabbitMQ asks every module of every application that it knows for its attributes, which loads all 960 of them, one by one.
After `quick_start` it has loaded 740, most of them in few steps, for 0.6 of the CPU.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ops.servers.accounts import Account, own_file, own_folder

#: The applications whose modules a start loads, those with most of them first.
APPLICATIONS: Final = (
    *("rabbit", "kernel", "stdlib", "ssl", "inets", "compiler", "ra", "rabbit_common", "mnesia", "xmerl", "sasl", "ranch"),
    *("cuttlefish", "osiris", "observer_cli", "tools", "public_key", "rabbitmq_prelaunch", "jsx", "os_mon", "aten", "recon"),
    *("syslog", "credentials_obfuscation", "seshat", "syntax_tools", "systemd", "sysmon_handler", "stdout_formatter"),
    *("amqp10_common", "gen_batch_server", "enough", "crypto", "asn1"),
)

FILE: Final = "start.erl"

#: Evaluated by `file:script`, which stops at the first error: RabbitMQ then starts as it does without this. Only its own
#: applications have attributes that it looks for, so the others are told to have no modules, which are loaded when they are
#: called. Not where RabbitMQ has Khepri, its store since 4.0, which reads those lists: it would be busy for ever. The
#: variables are for the VM that RabbitMQ starts to have an epmd: ours runs, so that VM ends at once. RabbitMQ 4 starts one also
#: to ask the other nodes of a cluster.
SCRIPT: Final = """\
os:unsetenv("ERL_AFLAGS").
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
IsRabbit = fun(App) -> lists:prefix("rabbit", atom_to_list(App)) end.
HasKhepri = lists:keymember(khepri, 1, All).
HasKhepri orelse os:putenv("ERL_FLAGS", "-version").
[application:load({application, App, lists:keystore(modules, 1, Keys, {modules, []})})
    || not HasKhepri, {App, Keys} <- All, not IsRabbit(App)].
IsWhole = fun(App) -> IsRabbit(App) orelse lists:member(App, [kernel, stdlib, sasl, ra, mnesia]) end.
[code:ensure_modules_loaded(proplists:get_value(modules, Keys, [])) || {App, Keys} <- All, IsWhole(App)].
"""


def module_folders(roots: Iterable[Path]) -> list[Path]:
    """List the folders of those applications in `roots`, in the order in which they are best searched.

    Leaves out an application of which there are several versions: which of them is used is Erlang's business.
    """
    found = []
    listed = [path for root in roots if root.is_dir() for path in root.iterdir()]
    for name in APPLICATIONS:
        folders = [path / "ebin" for path in listed if path.name == name or path.name.startswith(f"{name}-")]
        if len(folders) == 1 and not any(letter.isspace() for letter in str(folders[0])):
            found.append(folders[0])
    return found


def without_plugins(plugins: Path, folder: Path, account: Account | None) -> Path:
    """Make `folder` one in which RabbitMQ finds itself and none of the other plugins of `plugins`; gives the one to use.

    That is `plugins` itself where a folder cannot stand for it. A folder of an earlier version is brought up to date.
    """
    rabbit = [path for path in plugins.glob("rabbit-*") if path.is_dir()]
    if len(rabbit) != 1 or ":" in str(folder):  # separates folders
        return plugins
    own_folder(folder, account)
    for link in folder.iterdir():
        link.unlink()
    (folder / rabbit[0].name).symlink_to(rabbit[0])
    return folder


def quick_start(home: Path, account: Account | None) -> dict[str, str]:
    """Write the script into `home`, the VM's working directory; gives the variables that have it evaluated."""
    own_file(home / FILE, SCRIPT, account)
    return {
        "ERL_AFLAGS": f"-run file script {FILE}",
        "ERL_FLAGS": "-start_epmd false",  # we supervise our own; one that the VM starts would outlive it
    }
