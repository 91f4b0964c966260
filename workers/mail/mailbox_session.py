"""What every kind of mailbox is to those who pull it: a session with a few calls, and a closed set of errors.

A kind is one file with a `KIND` and a line in `workers.mail.pull.mailbox_kinds`, beside its file and line in
`schemas.config.mailbox_kinds`. All calls are synchronous, and each ends within the deadline that it was given, whatever the
server does. A session belongs to one thread at a time.
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
CONNECT_SECONDS: Final = 15.0  # from the look-up of the name to being logged in


class SourceError(Exception):
    """Why a mailbox could not be read; one of the four below, by what has to be done. Never with a secret in its text."""


class Refused(SourceError):
    """The credentials are not accepted, or not any more: somebody has to authorise anew. Trying again is of no use.

    Not `certain` where a server refuses without saying why, as some do when they are in trouble: then it is tried again a few
    times before anybody is called.
    """

    def __init__(self, detail: str, *, certain: bool = True) -> None:
        super().__init__(detail)
        self.certain = certain


class Away(SourceError):
    """The server cannot be reached, hangs, or says something that makes no sense: try again later, with growing waits."""


class NoFolder(Away):
    """One folder cannot be read; the others may."""


class Throttled(SourceError):
    """The server asks for less: do not come back before `seconds` have passed."""

    def __init__(self, detail: str, seconds: float) -> None:
        super().__init__(detail)
        self.seconds = seconds


class Gone(SourceError):
    """The cursor means nothing any more (another UIDVALIDITY, an expired history): `begin` anew. What is held is known."""


@dataclass(frozen=True, slots=True)
class PullBounds:
    """What one pull may take. It stops at whichever comes first, and takes one mail at least."""

    mails: int = MAX_MAILS
    size: int = MAX_BYTES  # bytes
    until: float = field(default_factory=lambda: time.monotonic() + MAX_SECONDS)  # of the monotonic clock
    #: Told the bytes of what is about to be fetched, once they are known; may wait for others to be done with theirs.
    hold: Callable[[int], None] = field(default=lambda _size: None, compare=False, repr=False)

    def seconds(self) -> float:
        """How long there is still; raises `Away` when the time is over."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise Away("out of time")
        return left


class Known(Protocol):
    """What is held of a mailbox already, so that it need not be fetched again."""

    def keys(self, source_keys: Sequence[str]) -> Set[str]:
        """Those of `source_keys` that are held."""

    def alike(self, folder: str, fresh: Mapping[str, Print]) -> Mapping[str, str]:
        """For new source keys whose mail is held under an old one in `folder`: new key -> old key, each old one once.

        None of `fresh` is held under its own key. Keys that mean the same share everything up to their second slash, so with
        that the old ones are told from the new.
        """

    def older(self, folder: str, source_key: str) -> bool:
        """Whether mails are held in `folder` under keys of another generation than that of `source_key`."""


@dataclass(frozen=True, slots=True)
class Begun:
    """Where both lanes begin: every mail that there is, or will be, is in one of them. `total`: mails in the backfill."""

    new: Cursor
    backfill: Cursor | None  # None: there is nothing to fill back
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Pulled:
    """What one pull brought. `cursor` may be stored once `mails` are durable, and not before.

    `more`: there is more at once, so pull again without waiting. For a backfill, `more` false means that it is finished.
    `seen` counts what is done with, fetched or known already, and `total` what there is, where the server says.
    `renamed` maps old source keys to new ones, of mails that were recognised; `kept` are items of mails that were not fetched.
    `missing` counts mails that were listed and then not given: they are asked for again at the next reconciliation.
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
        """The folders that can be read. Where there are too many to list, `EVERY_FOLDER` stands for the others; it is none."""

    def begin(self, folder: str) -> Begun:
        """Where to begin in `folder`, from what is there now; honours the mailbox's `sync_from`."""

    def pull(self, folder: str, lane: Lane, cursor: Cursor, bounds: PullBounds, known: Known) -> Pulled:
        """The next mails of a lane. What is `known` is not fetched again; nothing in the mailbox is changed."""

    def close(self) -> None:
        """Ends the session; never raises, never waits long."""


class Token(Protocol):
    """Gives an access token of the mailbox. Raises `Refused`, `Away` or `Throttled`."""

    def __call__(self, *, fresh: bool = False) -> str:
        """A token that is valid now; with `fresh` a new one, because the last was refused."""


@dataclass(frozen=True, slots=True)
class MailKind:
    """One kind of mailbox. `open` logs in; it raises a `SourceError`. `Token` is there for a mailbox with `oauth`.

    `per_folder`: false for a kind that reads the mailbox as a whole, under the one folder `schemas.mailbox.WHOLE`.
    """

    open: Callable[[Mailbox, Token | None], MailboxSession]
    per_folder: bool = True
