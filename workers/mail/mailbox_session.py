"""The interface between the puller and every kind of mailbox: a session with a few calls, and a closed set of errors.

A kind is one file with a `KIND` and a line in `workers.mail.pull.mailbox_kinds`, as well as its file and line in
`schemas.config.mailbox_kinds`. All calls are synchronous, and each ends within its deadline, whatever the server does. A
session is used by one thread at a time.
"""

import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Final, Protocol

from schemas.mailbox import Cursor, Lane, Mailbox, MailItem, Print, RawMail

MAX_MAILS: Final = 200  # in one batch
MAX_BYTES: Final = 8 * 1024 * 1024  # of raw mails in one batch; a larger mail is a batch of its own
MAX_SECONDS: Final = 60.0  # for one batch
MAX_MAIL: Final = 64 * 1024 * 1024  # bytes; a larger mail is not fetched but kept as an item flagged `too_large`
CONNECT_SECONDS: Final = 15.0  # from the look-up of the host name to the end of the login


class SourceError(Exception):
    """Why a mailbox could not be read; the classes below differ by what has to be done. The text contains no secret."""


class Refused(SourceError):
    """The server does not accept the credentials, or no longer: somebody has to reauthorize. Retrying does not help.

    Not `certain` if the server refuses without a reason, as some do while they have problems of their own: the pull is retried
    a few times before operators are told.
    """

    def __init__(self, detail: str, *, certain: bool = True) -> None:
        super().__init__(detail)
        self.certain = certain


class Away(SourceError):
    """The server cannot be reached, hangs, or sends a malformed answer: retry later, with growing waits."""


class NoFolder(Away):
    """One folder cannot be read; the others may."""


class Throttled(SourceError):
    """The server throttles: do not retry before `seconds` have passed."""

    def __init__(self, detail: str, seconds: float) -> None:
        super().__init__(detail)
        self.seconds = seconds


class Gone(SourceError):
    """The cursor is no longer valid (another UIDVALIDITY, an expired history): call `begin` again. Mails held stay known."""


@dataclass(frozen=True, slots=True)
class PullBounds:
    """The bounds of one pull. It stops at the first that it reaches, but takes at least one mail."""

    mails: int = MAX_MAILS
    size: int = MAX_BYTES  # bytes
    until: float = field(default_factory=lambda: time.monotonic() + MAX_SECONDS)  # of the monotonic clock
    #: Called with the size of what is about to be fetched, once it is known; may block until other pulls free memory.
    hold: Callable[[int], None] = field(default=lambda _size: None, compare=False, repr=False)

    def seconds(self) -> float:
        """The seconds left; raises `Away` if there are none."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise Away("out of time")
        return left


class Known(Protocol):
    """The mails of a mailbox that are held already, so that they need not be fetched again."""

    def keys(self, source_keys: Sequence[str]) -> Set[str]:
        """Those of `source_keys` that are held. Asked of nothing that the mailbox has not just listed."""

    def alike(self, folder: str, fresh: Mapping[str, Print]) -> Mapping[str, str]:
        """For new source keys whose mail is held under an old one in `folder`: new key -> old key, each old one once.

        None of `fresh` is held under its own key. Keys of one generation share everything up to their second slash, which
        distinguishes the old ones from the new.
        """

    def older(self, folder: str, source_key: str) -> bool:
        """Whether mails are held in `folder` under keys of another generation than that of `source_key`."""


@dataclass(frozen=True, slots=True)
class Begun:
    """The first cursors of both lanes, which together cover every mail, existing or new. `total`: mails in the backfill."""

    new: Cursor
    backfill: Cursor | None  # None: there is nothing to backfill
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Pulled:
    """The result of one pull. `cursor` may be stored once `mails` are durable, and not before.

    `more`: there is more to read now, so pull again without waiting. For a backfill, `more` false means that it is finished.
    `seen` counts the mails that are done, fetched or known already; `total` counts all mails, if the server says.
    `renamed` maps old source keys to new ones, for recognised mails; `kept` are items of mails that were not fetched.
    `missing` counts mails that were listed but not returned: they are requested again at the next reconciliation.
    """

    mails: Sequence[RawMail]
    cursor: Cursor
    more: bool
    seen: int = 0
    total: int | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    kept: Sequence[MailItem] = ()
    missing: int = 0


class MailboxSession(Protocol):
    """An open session on one mailbox. Every call may raise a `SourceError`, and nothing else that is not a bug."""

    def folders(self) -> Sequence[str]:
        """The folders that can be read. `EVERY_FOLDER`, which `begin` rejects, stands for those beyond the limit on listing."""

    def begin(self, folder: str) -> Begun:
        """The first cursors of `folder`, by its present state; honours the mailbox's `sync_from`."""

    def pull(self, folder: str, lane: Lane, cursor: Cursor, bounds: PullBounds, known: Known) -> Pulled:
        """The next mails of a lane. Mails in `known` are not fetched again; nothing in the mailbox is changed."""

    def close(self) -> None:
        """Ends the session; never raises, never waits long."""


class Token(Protocol):
    """Gives an access token of the mailbox. Raises `Refused`, `Away` or `Throttled`."""

    def __call__(self, *, fresh: bool = False) -> str:
        """A valid token; with `fresh` a new one, because the server refused the last."""


@dataclass(frozen=True, slots=True)
class MailKind:
    """One kind of mailbox. `open` logs in, or raises a `SourceError`; it gets a `Token` for a mailbox with `oauth`.

    `per_folder`: false for a kind that reads the mailbox as a whole, under the one folder `schemas.mailbox.WHOLE`.
    """

    open: Callable[[Mailbox, Token | None], MailboxSession]
    per_folder: bool = True
