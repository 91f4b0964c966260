"""What a data folder remembers between runs, in its `servers.json`: where the data is, ports and passwords."""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ops.errors import OpsError
from ops.process_roles import LOGINS
from ops.servers.accounts import Account, can_enter, make_folder, own_file, server_account
from ops.servers.ports import Claims, choose_ports

FILE: Final = "servers.json"
ELSEWHERE: Final = Path("/var/lib/waxseal")
_SECRETS: Final = ("postgres", "rabbitmq", *(login.key for login in LOGINS))
#: RabbitMQ runs `df` on its folder through a shell, which waits for a closing quote; initdb refuses line ends.
_AWKWARD: Final = frozenset("'\"`\\")


@dataclass
class Memory:
    """What one data folder remembers. `elsewhere` has the servers' data when they cannot enter the folder itself."""

    data: Path
    elsewhere: Path | None = None
    ports: dict[str, int] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def folder(self) -> Path:
        """The folder that holds the servers' data."""
        return self.elsewhere or self.data

    @property
    def workplaces(self) -> tuple[Path, ...]:
        """The working directories of the servers."""
        broker = self.folder / "rabbitmq"
        postgres = self.folder / "postgres"
        return (postgres, postgres / "data", broker, broker / "epmd", self.folder / "prometheus")

    def take_ports(self, names: Sequence[str], claims: Claims, preferred: Mapping[str, int] | None = None) -> None:
        """Choose free ports for these names, those of the last run first, claim them and write them to the file."""
        others = {port for name, port in self.ports.items() if name not in names}
        self.ports |= choose_ports(names, {**self.ports, **(preferred or {})}, others, claims)
        remember(self)

    def account(self, preferred: str) -> Account | None:
        """Give the account for a server. Raises `OpsError` when it can no longer reach its data."""
        account = server_account(preferred)
        if not can_enter(account, self.folder):
            who = "you" if account is None else account.name
            raise OpsError(f"{self.folder} cannot be entered by {who}, who runs {preferred}: allow that, or use --data")
        return account


def check_path(data: Path) -> None:
    """Raise `OpsError` for a data folder whose path a server cannot work with, before anything is made there."""
    path = str(data.absolute())
    if not path.isprintable() or _AWKWARD & set(path):
        shown = path.encode("unicode_escape").decode()
        raise OpsError(
            f"{shown}: RabbitMQ cannot work in a folder with a quote, a backslash or a line end in its path: use another --data"
        )


def recall(data: Path) -> Memory:
    """Read what `data` remembers; make a new folder, with passwords and a place for the servers' data."""
    check_path(data)
    make_folder(data)
    memory = peek(data)
    if memory is None:
        memory = Memory(data, elsewhere=_elsewhere(data))
        if memory.elsewhere is not None:
            make_folder(memory.elsewhere)
    for name in _SECRETS:
        memory.passwords.setdefault(name, secrets.token_urlsafe(24))
    remember(memory)
    return memory


def peek(data: Path) -> Memory | None:
    """Read what `data` remembers, and change nothing; None when it was never used."""
    try:
        known = json.loads((data / FILE).read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise OpsError(f"{data / FILE} is damaged ({error}): restore it, or remove {data} to begin anew") from error
    elsewhere = Path(known["elsewhere"]) if known["elsewhere"] else None
    return Memory(data, elsewhere, known["ports"], known["passwords"])


def remember(memory: Memory) -> None:
    """Write the memory to its file, atomically; only the owner can read it."""
    known = {
        "elsewhere": str(memory.elsewhere) if memory.elsewhere else None,
        "ports": memory.ports,
        "passwords": memory.passwords,
    }
    own_file(memory.data / FILE, json.dumps(known, indent=1) + "\n", None)


def _elsewhere(data: Path) -> Path | None:
    """Choose a place that the servers can reach: None for the data folder itself, if they can enter it."""
    if all(can_enter(server_account(name), data) for name in ("postgres", "rabbitmq")):
        return None
    return ELSEWHERE / hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
