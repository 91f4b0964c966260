"""A mailbox: a source that Waxseal pulls instead of being posted to, and what is pulled from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, get_args

MailboxState = Literal["active", "paused", "needs_reauthorization"]
#: `new`: mails that arrived after the mailbox was first read, oldest first; `backfill`: those from before, newest first.
Lane = Literal["new", "backfill"]

MAILBOX_STATES: Final[tuple[str, ...]] = get_args(MailboxState)
LANES: Final[tuple[Lane, ...]] = get_args(Lane)

EVENT_TYPE: Final = "email.received"
CONTENT_TYPE: Final = "message/rfc822"
BACKFILL: Final = "backfill"  # extension of an event: "true" for a mail from before the mailbox was first read
DELIVER_BACKFILL: Final = "deliver_backfill"  # option of a mailbox's source: "false" plans no deliveries of such mails

DEFAULT_SUBJECT: Final = "address"
EVERY_FOLDER: Final = "*"  # in place of a folder's name: every folder that can be read
WHOLE: Final = "all"  # the one folder of a mailbox whose kind has no folders, such as Gmail's history

#: How far a lane is read: small JSON that only the mailbox's kind interprets.
Cursor = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OAuth:
    """How to get access tokens (RFC 6749 §6). `refresh_token` is the configured one; a rotated one is stored separately."""

    token_url: str
    client_id: str
    refresh_token: str = field(repr=False)
    client_secret: str | None = field(default=None, repr=False)
    scope: str | None = None


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A configured mailbox. Its secrets are in the clear here and never in a repr.

    `id` is its source's id. `kind` names one of `schemas.config.mailbox_kinds`. `username` is the login, and for `graph` and
    `gmail` the mail address. `subject` is one of address, thread, plus-address, header:NAME, or a fixed text. `sync_from`:
    older mails are not read; None reads all. `authservs` are the authserv-ids (RFC 8601) whose Authentication-Results are
    trusted.
    """

    id: int
    tenant: str
    name: str
    kind: str
    username: str
    folders: tuple[str, ...] = ("INBOX",)
    host: str = ""
    port: int = 993
    tls: bool = True
    ca: str | None = field(default=None, repr=False)  # PEM, instead of the system's authorities
    api_url: str | None = None  # of gmail and graph, instead of the provider's
    password: str | None = field(default=None, repr=False)
    oauth: OAuth | None = field(default=None, repr=False)
    subject: str = DEFAULT_SUBJECT
    sync_from: datetime | None = None
    deliver_backfill: bool = True
    authservs: tuple[str, ...] = ()
    poll: float = 300.0  # seconds between two pulls without a notification
    retention: int | None = None  # seconds for which content is kept; None: as long as the tenant's


@dataclass(frozen=True, slots=True)
class RawMail:
    """One mail as it was fetched: the bytes (RFC 5322) are kept unchanged.

    `source_key` names it in its mailbox for ever: the same mail fetched again has the same key. `internal_date` is when the
    server accepted it, with a time zone. `event_id` is None where the bytes are the identity; a kind whose bytes differ from
    fetch to fetch sets it. `backfill`: the mail is from before the mailbox was first read.
    """

    source_key: str
    folder: str
    raw: bytes = field(repr=False)
    internal_date: datetime
    event_id: str | None = None
    backfill: bool = False


@dataclass(frozen=True, slots=True)
class Print:
    """Identifies a mail without its body, when its source key has changed. Not made for a mail without a Message-ID."""

    message_id: str
    size: int
    internal_date: datetime


@dataclass(frozen=True, slots=True)
class MailItem:
    """The record of a mail that is durable: the key under which it was fetched, and the event as which it was published.

    `event_id` is None for a mail that could not be fetched whole; `flags` say why: `too_large`.
    """

    source_key: str
    folder: str
    message_id: str | None
    size: int
    internal_date: datetime
    event_id: str | None
    flags: Sequence[str] = ()
