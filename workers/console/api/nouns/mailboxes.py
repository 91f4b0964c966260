"""Mailboxes: their state and progress, pausing and resuming, and reading them now."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final

from pydantic import Field

from ops.admin import mailboxes
from ops.admin.bulk import Named
from schemas.given import Words
from workers.console.api.operation import Answer, Asked, Operation
from workers.console.api.paths import OF_TENANT
from workers.console.api.shapes import Changed, Given, Shape, Time, Why


class MailboxRow(Shape):
    """A mailbox: its state and progress."""

    tenant: str
    name: str
    kind: str
    username: str | None
    state: str
    reason: str | None
    failures: int
    error: str | None
    slow: bool
    lease_owner: str | None
    unreadable: int
    state_at: Time | None
    began_at: Time | None
    pulled_at: Time | None
    next_pull_at: Time | None
    reconciled_at: Time | None
    failing_since: Time | None
    lease_until: Time | None
    backfill_done: int
    backfill_total: int | None
    backfill_finished: bool


class Folder(Shape):
    """How far one folder of a mailbox was read."""

    folder: str
    lane: str
    done: int
    total: int | None
    begun_at: Time | None
    moved_at: Time | None
    finished_at: Time | None


class UnreadableFolder(Shape):
    """A folder that cannot be read."""

    folder: str
    error: str
    since: Time | None


class Mailbox(MailboxRow):
    """A mailbox, folder by folder."""

    held: int
    unfetched: int
    conflicts: int
    by_folder: list[Folder]
    unreadable_folders: list[UnreadableFolder]


class Mailboxes(Shape):
    """All mailboxes of a tenant."""

    data: list[MailboxRow]


class Resync(Given):
    """Which folder; all if none is named."""

    folder: Words | None = None
    reason: Annotated[Words | None, Field(description="why; the audit keeps it")] = None


def _named(asked: Asked) -> Named:
    return Named(str(asked.tenant), asked.name, asked.by(getattr(asked.body, "reason", None)))


def _listed(asked: Asked) -> Answer:
    return Answer({"data": list(mailboxes.list_mailboxes(asked.reads, asked.tenant))})


def _shown(asked: Asked) -> Answer:
    return Answer(mailboxes.show_mailbox(asked.acts, _named(asked)))  # what is held of it, readers may not read


def _pause(asked: Asked) -> bool:
    return mailboxes.pause(asked.acts, _named(asked), asked.body.reason or "by an operator")


def _resume(asked: Asked) -> bool:
    return mailboxes.resume(asked.acts, _named(asked))


def _resync(asked: Asked) -> bool:
    return mailboxes.resync(asked.acts, _named(asked), asked.body.folder)


def _sync(asked: Asked) -> bool:
    return bool(mailboxes.sync(asked.acts, str(asked.tenant), asked.name, asked.by(asked.body.reason)))


def _act(act: Callable[[Asked], bool], asked: Asked) -> Answer:
    return Answer({"changed": act(asked)})


_ONE: Final = f"{OF_TENANT}/mailboxes/{{name}}"
_ACTS: Final[tuple[tuple[str, Callable[[Asked], bool], str, Any], ...]] = (
    ("pause", _pause, "Stop pulling a mailbox until it is resumed", Why),
    ("resume", _resume, "Pull a mailbox again; refused credentials are tried again", Why),
    ("resync", _resync, "Compare a mailbox with what was fetched, and fetch what is missing", Resync),
    ("sync", _sync, "Pull a mailbox now", Why),
)
OPERATIONS: Final = (
    Operation(
        "list_mailboxes",
        "GET",
        f"{OF_TENANT}/mailboxes",
        "viewer",
        "tenant",
        _listed,
        "The tenant's mailboxes",
        {200: Mailboxes},
    ),
    Operation("show_mailbox", "GET", _ONE, "viewer", "tenant", _shown, "A mailbox, folder by folder", {200: Mailbox}),
    *(
        Operation(
            f"{name}_mailbox",
            "POST",
            f"{_ONE}/{name}",
            "operator",
            "tenant",
            partial(_act, act),
            told,
            {200: Changed},
            body=body,
            act=True,
            keyed="taken",
        )
        for name, act, told, body in _ACTS
    ),
)
