"""What a data folder remembers between runs, in its `servers.json`: where the data is, ports and passwords."""

import hashlib
import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ops.account import Account, can_enter, own_file, server_account
from ops.errors import OpsError

FILE: Final = "servers.json"
ELSEWHERE: Final = Path("/var/lib/waxseal")
_SECRETS: Final = ("postgres", "rabbitmq", "worker")


@dataclass
class Memory:
    """One data folder's memory. `elsewhere` is where the servers' data is when they cannot enter the folder itself."""

    data: Path
    elsewhere: Path | None = None
    ports: dict[str, int] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def folder(self) -> Path:
        """The folder that holds the servers' data."""
        return self.elsewhere or self.data

    def account(self, preferred: str) -> Account | None:
        """Give the account for a server. Raises `OpsError` when it can no longer reach its data."""
        account = server_account(preferred)
        if not can_enter(account, self.folder):
            who = "you" if account is None else account.name
            raise OpsError(f"{self.folder} cannot be entered by {who}, who runs {preferred}: allow that, or use --data")
        return account


def recall(data: Path) -> Memory:
    """Read what `data` remembers; a new folder is made, and gets passwords and a place for the servers' data."""
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
    """Keep the memory, in one step, readable by nobody else."""
    known = {
        "elsewhere": str(memory.elsewhere) if memory.elsewhere else None,
        "ports": memory.ports,
        "passwords": memory.passwords,
    }
    own_file(memory.data / FILE, json.dumps(known, indent=1) + "\n", None)


def make_folder(folder: Path) -> None:
    """Make a folder that others can pass through but not list; one that exists is left as it is."""
    if not folder.is_dir():
        folder.mkdir(parents=True)
        folder.chmod(0o711 if os.geteuid() == 0 else 0o700)


def _elsewhere(data: Path) -> Path | None:
    """Choose a place that the servers can reach: None is the data folder itself, as long as they can enter it."""
    if all(can_enter(server_account(name), data) for name in ("postgres", "rabbitmq")):
        return None
    return ELSEWHERE / hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
