"""Errors of running the system. Their text is one line that says what a person should do next.

OpsError
├── Misconfigured    a setting is missing or wrong: fix it and start again
├── ServersMissing   PostgreSQL or RabbitMQ is not installed: install it, or use containers
├── NotReady         a process did not come up in time: its log says why
├── AlreadyRunning   this data folder has a supervisor: stop it, or use another folder
├── PlaceAway        the files of a log cannot be reached: check the place that the text names
├── NotPublished     what is asked of a tenant's log is not in it yet: ask again later
└── Unknown          there is nothing of that name or id: look at the list that the text names
    └── UnknownTenant
"""


class OpsError(Exception):
    """A fault that the user has to fix; the command line prints the text and exits with 2."""


class Misconfigured(OpsError):
    """A setting is missing or has a value that cannot be used."""


class ServersMissing(OpsError):
    """The programs of PostgreSQL or RabbitMQ are not on this machine."""


class NotReady(OpsError):
    """A process died or stayed silent before it was ready."""


class AlreadyRunning(OpsError):
    """Another supervisor holds the data folder."""


class PlaceAway(OpsError):
    """A place for files cannot be reached, refuses, or does not answer in time; the same call may succeed later."""


class NotPublished(OpsError):
    """What is asked of a tenant's log is not published yet."""


class Unknown(OpsError):
    """What was named does not exist."""


class UnknownTenant(Unknown):
    """There is no such tenant. The text lists the others, which is for who runs the system: others are not shown it."""


def one_line(error: BaseException | None) -> str:
    """The first line of its text; of a database error the server's own, without the statement and its parameters."""
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
