"""What is read from a mail before it becomes an event: its Message-ID, and its subject by the mailbox's rule. Pure.

Never raises, whatever the bytes are: a mail that cannot be read is kept all the same, under a subject that identifies it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from pipeline.formats.extraction import HEADER
from pipeline.mail.charsets import one_line, phrase
from pipeline.mail.flags import Findings
from pipeline.mail.headers import ONE_HEADER, Fields, addresses, ids, read_fields, sender

MAX_ID: Final = 250  # characters of a Message-ID; a longer one is replaced by its digest
MAX_SUBJECT: Final = 512  # characters; a longer one is replaced by its digest

_RECIPIENTS: Final = ("delivered-to", "x-original-to", "x-delivered-to", "envelope-to", "to", "cc")


@dataclass(frozen=True, slots=True)
class MailAttributes:
    """The result of `read_attributes`. `message_id` is without brackets, in lower case; None if there is none."""

    message_id: str | None
    subject: str


def event_id(raw: bytes) -> str:
    """The event id of a mail: the digest of its bytes."""
    return "sha256:" + sha256(raw).hexdigest()


def read_attributes(raw: bytes, rule: str, address: str, otherwise: str) -> MailAttributes:
    """The attributes of `raw`, by the mailbox's `rule`. `address` is the mailbox's own; `otherwise` is the fallback subject.

    The subject is never empty, has no control characters, and has at most 512 characters.
    """
    fields = read_fields(raw, Findings())
    message_id = _first_id(fields, "message-id")
    if rule.startswith(HEADER):
        found = phrase(fields.first(rule.removeprefix(HEADER).strip().lower()) or b"", Findings(), ONE_HEADER)
    elif rule in RULES:
        found = RULES[rule](_Mail(fields, message_id, address, raw))
    else:
        found = rule
    return MailAttributes(message_id, _shortened(found) or _shortened(otherwise) or "mail")


@dataclass(frozen=True, slots=True)
class _Mail:
    fields: Fields
    message_id: str | None
    address: str
    raw: bytes


def _sender(mail: _Mail) -> str:
    """The sender's address."""
    return sender(mail.fields, Findings())


def _thread(mail: _Mail) -> str:
    """The id of the first mail of the thread, which is the first in References (RFC 5322 §3.6.4)."""
    root = _first_id(mail.fields, "references") or _first_id(mail.fields, "in-reply-to")
    return root or mail.message_id or event_id(mail.raw)


def _plus(mail: _Mail) -> str:
    """The tag after the + of a recipient at the mailbox's own address; without one, the first tag of any recipient."""
    own = mail.address.lower().partition("@")
    tags = []
    for address in _addresses(mail.fields, _RECIPIENTS):
        local, _, domain = address.partition("@")
        name, plus, tag = local.partition("+")
        if plus and tag:
            tags.append((not (name == own[0] and (domain == own[2] or not own[2])), tag))
    return min(tags, key=lambda tag: tag[0])[1] if tags else ""


RULES: Final[Mapping[str, Callable[[_Mail], str]]] = MappingProxyType(
    {"address": _sender, "thread": _thread, "plus-address": _plus}
)


def _addresses(fields: Fields, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        yield from (each.address.lower() for each in addresses(fields, name, Findings()) if "@" in each.address)


def _first_id(fields: Fields, name: str) -> str | None:
    value = fields.first(name)
    found = ids(value, Findings()) if value else []
    cleaned = found[0].strip("<>").lower() if found else ""
    return event_id(cleaned.encode()) if len(cleaned) > MAX_ID else cleaned or None


def _shortened(text: str) -> str:
    cleaned = one_line(text, len(text))
    return event_id(cleaned.encode()) if len(cleaned) > MAX_SUBJECT else cleaned
