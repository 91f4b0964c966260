"""Where a starting RabbitMQ finds its modules at once.

Erlang looks for each module in one folder after the other. A start loads some 700 modules and passes the folders of all
seventy plugins on the way to most of them: it tries 50,000 files that are not there, which takes half of its CPU.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ops.servers.accounts import Account, own_folder

#: The applications whose modules a start loads, those with most of them first.
APPLICATIONS: Final = (
    *("rabbit", "kernel", "stdlib", "ssl", "inets", "compiler", "ra", "rabbit_common", "mnesia", "xmerl", "sasl", "ranch"),
    *("cuttlefish", "osiris", "observer_cli", "tools", "public_key", "rabbitmq_prelaunch", "jsx", "os_mon", "aten", "recon"),
    *("syslog", "credentials_obfuscation", "seshat", "syntax_tools", "systemd", "sysmon_handler", "stdout_formatter"),
    *("amqp10_common", "gen_batch_server", "enough", "crypto", "asn1"),
)


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
