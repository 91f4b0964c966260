"""The processes, each named once. What starts them, gives them logins and labels their metrics derives from this table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Login:
    """A login of private servers. The migrations make the role that it is a member of, with what its processes need."""

    key: str  # of its password in servers.json
    name: str
    member_of: str


_WORKER: Final = Login("worker", "waxseal_worker", "waxseal_writer")
_SEALER: Final = Login("sealer", "waxseal_sealer_login", "waxseal_sealer")
_ERASER: Final = Login("eraser", "waxseal_eraser_login", "waxseal_eraser")
_VERIFIER: Final = Login("verifier", "waxseal_verifier_login", "waxseal_verifier")
_CONSOLE: Final = Login("console", "waxseal_console_login", "waxseal_console")

INGRESS: Final = "ingress"
INGEST: Final = "ingest"
RELAY: Final = "relay"
DELIVER: Final = "deliver"
MAIL_PULL: Final = "mail-pull"
MAIL_IDLE: Final = "mail-idle"
SEQUENCER: Final = "sequencer"
SEALER: Final = "sealer"
ERASER: Final = "eraser"
VERIFIER: Final = "verifier"
CONSOLE: Final = "console"

#: The login of each process, in the order in which they are started. The names are those of their commands, and in logs.
LOGIN_OF: Final[Mapping[str, Login]] = {
    INGRESS: _WORKER,
    INGEST: _WORKER,
    RELAY: _WORKER,
    DELIVER: _WORKER,
    MAIL_PULL: _WORKER,
    MAIL_IDLE: _WORKER,
    SEQUENCER: _SEALER,
    SEALER: _SEALER,
    ERASER: _ERASER,
    VERIFIER: _VERIFIER,
    CONSOLE: _CONSOLE,
}
WORKERS: Final = tuple(LOGIN_OF)
LOGINS: Final = tuple(dict.fromkeys(LOGIN_OF.values()))
SCALED: Final = (INGEST, DELIVER)  # of which `up --workers` starts several

SUPERVISOR: Final = "supervisor"
SERVERS: Final = ("postgres", "rabbitmq", "epmd")  # that `up` always starts
