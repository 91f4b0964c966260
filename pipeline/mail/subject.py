"""What a mail is about, by the rule of its mailbox: the subject of the event, whose chain it then extends."""

import hashlib
import re
from typing import Final

from pipeline.mail.fields import ONE_HEADER, Fields, addresses, id_of, ids, read_fields
from pipeline.mail.findings import Findings
from pipeline.mail.words import one_line, phrase

MAX_SUBJECT: Final = 255  # characters
NOBODY: Final = "unknown"
HEADER: Final = "header:"
RULES: Final = ("address", "thread", "plus-address")

_HEADER_NAME: Final = re.compile(r"[!-9;-~]{1,100}")
_DELIVERED: Final = ("delivered-to", "x-original-to", "envelope-to", "x-envelope-to", "to", "cc")
_TAG: Final = re.compile(r"[^+@\s]+\+([^@\s]+)@[^@\s]+")


def check_rule(rule: str) -> None:
    """Raises ValueError unless `rule` is address, thread, plus-address, header:NAME, or a fixed text."""
    if rule.startswith(HEADER) and not _HEADER_NAME.fullmatch(rule.removeprefix(HEADER)):
        raise ValueError("header: must be followed by the name of a header, as header:X-Ticket")
    if rule != bounded(rule) or not rule:
        raise ValueError(f"must be {', '.join(RULES)}, header:NAME, or a text of 1 to {MAX_SUBJECT} printable characters")


def subject_of(raw: bytes, rule: str) -> str:
    """The subject of the event that `raw` becomes: 1 to 255 printable characters, the same for the same bytes. Never raises.

    `address`: whom it is from, in lower case. `thread`: the id of the mail that began the conversation, its own if it began it.
    `plus-address`: the tag of the first recipient that has one, as 4711 of support+4711@acme.example. `header:NAME`: what
    that header says. Where there is no such thing, the address; where there is none of that either, "unknown". Anything else
    is a fixed text, which is the subject of every mail.
    """
    if rule not in RULES and not rule.startswith(HEADER):
        return bounded(rule) or NOBODY
    fields = read_fields(raw, Findings())
    if rule == "thread":
        return bounded(_thread(fields) or f"sha256:{hashlib.sha256(raw).hexdigest()}")
    found = ""
    if rule == "plus-address":
        found = _tag(fields)
    elif rule.startswith(HEADER):
        found = phrase(fields.first(rule.removeprefix(HEADER).lower()) or b"", Findings(), ONE_HEADER)
    return bounded(found) or bounded(_address(fields)) or NOBODY


def bounded(text: str) -> str:
    """The text on one line; one that is too long keeps its beginning and a digest of the whole, so that no two become one."""
    line = one_line(text, len(text))
    if len(line) <= MAX_SUBJECT:
        return line
    digest = hashlib.sha256(line.encode()).hexdigest()[:32]
    return f"{line[: MAX_SUBJECT - 33].rstrip()}~{digest}"


def _address(fields: Fields) -> str:
    for name in ("from", "sender", "return-path"):
        for each in addresses(fields, name, Findings()):
            if each.address:
                return each.address.lower()
    return ""


def _thread(fields: Fields) -> str | None:
    for name in ("references", "in-reply-to"):
        for value in fields.all(name):
            for each in ids(value, Findings()):
                return each
    return id_of(fields, Findings())


def _tag(fields: Fields) -> str:
    for name in _DELIVERED:
        for each in addresses(fields, name, Findings()):
            tag = _TAG.fullmatch(each.address)
            if tag:
                return tag[1].lower()
    return ""
