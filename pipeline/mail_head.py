"""What is read of a mail before it is an event: its Message-ID, and the subject that its mailbox's rule gives it. Pure.

Never raises, whatever the bytes are: a mail that cannot be read is kept all the same, under a subject that says which it is.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32
from email.utils import getaddresses
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from pipeline.rules import HEADER

MAX_HEAD: Final = 256 * 1024  # bytes that are looked at
MAX_FIELD: Final = 16 * 1024  # characters of one field that are looked at
MAX_ID: Final = 250  # characters of a Message-ID; of a longer one the digest stands for it
MAX_SUBJECT: Final = 512  # characters; a longer one is replaced by its digest

_BLANK = re.compile(rb"\r?\n\r?\n|^\r?\n")
_ID = re.compile(r"<\s*([^<>]{1,1000})\s*>")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_SPACES = re.compile(r"\s+")
_PARSER = BytesParser(policy=compat32)
_RECIPIENTS: Final = ("Delivered-To", "X-Original-To", "X-Delivered-To", "Envelope-To", "To", "Cc")


@dataclass(frozen=True, slots=True)
class Head:
    """What a mail's head says. `message_id` is without brackets, in lower case; None when there is none."""

    message_id: str | None
    subject: str


def event_id(raw: bytes) -> str:
    """The identity of a mail: its bytes."""
    return "sha256:" + sha256(raw).hexdigest()


def read_head(raw: bytes, rule: str, address: str, otherwise: str) -> Head:
    """The head of `raw`, by the mailbox's `rule`; `address` is the mailbox's own, `otherwise` what is left when all else fails.

    The subject is never empty, has no control characters, and 512 characters at most.
    """
    fields = _fields(raw)
    message_id = _first_id(_field(fields, "Message-ID"))
    if rule.startswith(HEADER):
        found = _decoded(_field(fields, rule[len(HEADER) :].strip()))
    elif rule in RULES:
        found = RULES[rule](_Mail(fields, message_id, address, raw))
    else:
        found = rule
    return Head(message_id, _fitting(found or "") or _fitting(otherwise) or "mail")


@dataclass(frozen=True, slots=True)
class _Mail:
    fields: Message
    message_id: str | None
    address: str
    raw: bytes


def _sender(mail: _Mail) -> str:
    """The address that it is from."""
    return next(_addresses(mail.fields, ("From", "Sender", "Return-Path")), "")


def _thread(mail: _Mail) -> str:
    """The first mail of its thread: RFC 5322 has it stand first in References."""
    root = _first_id(_field(mail.fields, "References")) or _first_id(_field(mail.fields, "In-Reply-To"))
    return root or mail.message_id or event_id(mail.raw)


def _plus(mail: _Mail) -> str:
    """What stands behind the + of the mailbox's address; else, of any recipient's."""
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


def _fields(raw: bytes) -> Message:
    """The header fields; of a mail that is none, an empty message. The `email` package raises on some real mails."""
    end = _BLANK.search(raw, 0, MAX_HEAD)
    try:
        return _PARSER.parsebytes(raw[: end.start() if end else MAX_HEAD], headersonly=True)
    except Exception:  # noqa: BLE001 - whatever it is, the mail is kept
        return Message()


def _field(fields: Message, name: str) -> str:
    values = _all(fields, name)
    return values[0] if values else ""


def _all(fields: Message, name: str) -> Sequence[str]:
    try:
        return [str(value)[:MAX_FIELD] for value in fields.get_all(name) or ()]
    except Exception:  # noqa: BLE001 - a field of which `email` can make nothing
        return ()


def _addresses(fields: Message, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        try:
            found = getaddresses(list(_all(fields, name)))
        except Exception:  # noqa: BLE001, S112 - a field of which `email` can make nothing
            continue
        yield from (address.lower() for _, address in found if "@" in address)


def _first_id(value: str) -> str | None:
    found = _ID.search(value)
    text = found[1] if found else value.strip().partition(" ")[0]
    cleaned = _SPACES.sub("", _CONTROL.sub("", text)).lower()
    return event_id(cleaned.encode()) if len(cleaned) > MAX_ID else cleaned or None


def _decoded(value: str) -> str:
    """RFC 2047's encoded words as text, where they are in order."""
    try:
        return str(make_header(decode_header(value)))
    except (HeaderParseError, LookupError, ValueError):
        return value


def _fitting(text: str) -> str:
    cleaned = _SPACES.sub(" ", _CONTROL.sub(" ", text)).strip()
    if len(cleaned) > MAX_SUBJECT:
        return event_id(cleaned.encode())
    return cleaned
