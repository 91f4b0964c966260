"""A private RabbitMQ: on the loopback address only, with a port mapper (epmd) of its own and a user that is not guest.

Without its own epmd the node would register with the machine's, or start one that outlives it.
"""

import secrets
import socket
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ops.servers.accounts import Account, own_file, own_folder
from ops.servers.binaries import find_epmd, find_erlang_library, find_rabbitmq
from ops.servers.child import Child
from ops.servers.erlang_start import module_folders, quick_start, without_plugins
from ops.servers.leftovers import end_leftovers
from ops.servers.ports import LOOPBACK, listens
from ops.settings import environment

USER: Final = "waxseal"
NODE: Final = "waxseal@localhost"  # part of the data's folder name, so it must stay when the machine's name changes

#: Erlang terms instead of rabbitmq.conf: 3.10 and 4.x both read them. RabbitMQ makes the user only in an empty database.
CONFIGURATION: Final = """\
[{{rabbit, [
  {{tcp_listeners, [{{"127.0.0.1", {port}}}]}},
  {{default_user, <<"{user}">>}},
  {{default_pass, <<"{password}">>}},
  {{loopback_users, []}}
]}}].
"""


def rabbitmq_url(port: int, password: str) -> str:
    """Give the URL of the user on the private broker, on the virtual host `/`."""
    return f"amqp://{quote(USER)}:{quote(password)}@{LOOPBACK}:{port}/%2F"


def epmd_child(home: Path, port: int, account: Account | None, log: Path) -> Child:
    """Describe the process of the port mapper, which has no data. Raises `ServersMissing`."""
    folder = own_folder(own_folder(home, account) / "epmd", account)
    return Child(
        name="epmd",
        role="epmd",
        command=[str(find_epmd()), "-port", str(port), "-address", LOOPBACK],
        environment={"PATH": environment().get("PATH", "/usr/bin:/bin"), "HOME": str(folder)},
        log=log,
        folder=folder,
        ready=lambda: listens(port),
        clear=lambda: end_leftovers(folder),
        account=account,
    )


def rabbitmq_child(home: Path, ports: tuple[int, int, int], password: str, account: Account | None, log: Path) -> Child:
    """Prepare a broker whose data is in `home` and describe its process; `ports` are AMQP's, the node's and epmd's.

    Raises `ServersMissing` when RabbitMQ is not installed.
    """
    amqp, _, _ = ports
    own_folder(home, account)
    own_folder(home / "log", account)
    cookie = home / ".erlang.cookie"
    if not cookie.exists():
        own_file(cookie, secrets.token_hex(20), account, mode=0o400)
    own_file(home / "advanced.config", CONFIGURATION.format(port=amqp, user=USER, password=password), account)
    own_file(home / "enabled_plugins", "[].\n", account)
    script = find_rabbitmq()
    return Child(
        name="rabbitmq",
        role="rabbitmq",
        command=[str(script)],
        environment=_environment(home, ports) | _found_at_once(script, home, account) | quick_start(home, account),
        log=log,
        folder=home,
        ready=lambda: _greets(amqp),
        clear=lambda: end_leftovers(home),
        account=account,
    )


def _environment(home: Path, ports: tuple[int, int, int]) -> dict[str, str]:
    _, node, epmd = ports
    return {
        "PATH": environment().get("PATH", "/usr/bin:/bin"),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "RUNNING_UNDER_SYSTEMD": "true",  # the script then becomes the Erlang VM, instead of its parent
        "RABBITMQ_NODENAME": NODE,
        "RABBITMQ_DIST_PORT": str(node),
        "RABBITMQ_CONF_ENV_FILE": str(home / "rabbitmq-env.conf"),  # absent, like the next: the machine's are not read
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_LOGS": "-",
        "ERL_EPMD_PORT": str(epmd),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "ERL_CRASH_DUMP": str(home / "erl_crash.dump"),
    }


def _found_at_once(script: Path, home: Path, account: Account | None) -> dict[str, str]:
    """The part of the environment that keeps the start from looking for modules where there are none."""
    arguments = "-kernel inet_dist_use_interface {127,0,0,1}"
    plugins = script.resolve().parents[1] / "plugins"
    if not plugins.is_dir():
        return {"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": arguments}
    folders = module_folders(root for root in (plugins, find_erlang_library()) if root is not None)
    first = "".join(f" -pa {folder}" for folder in reversed(folders))  # the last of them is searched first
    return {
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": arguments + first,
        "RABBITMQ_PLUGINS_DIR": str(without_plugins(plugins, home / "plugins", account)),
    }


def _greets(port: int) -> bool:
    """Whether the broker answers AMQP's protocol header; it opens its port last, when everything else is up."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=2) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    except OSError:
        return False
