"""The header of a mail, parsed from its first bytes only, in linear time whatever the bytes are."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from pipeline.mail.address_list import read_list
from pipeline.mail.charsets import header_text, one_line, phrase
from pipeline.mail.flags import Findings
from schemas.mail_document import Address

HEADER_BLOCK: Final = 256 * 1024  # bytes
ONE_HEADER: Final = 64 * 1024  # bytes
MAX_HEADERS: Final = 2000
MAX_ADDRESSES: Final = 2000  # in all headers of one name
MAX_ADDRESS: Final = 320  # characters
MAX_NAME: Final = 500
MAX_REFERENCES: Final = 200
MAX_ID: Final = 998  # characters of a message id: a line's length

#: Allowed once at most (RFC 5322 §3.6); with a second one, two mail readers can be made to show different mails.
_ONCE: Final = ("from", "sender", "reply-to", "to", "cc", "bcc", "message-id", "in-reply-to", "references", "subject", "date")
_ENDS: Final = (b"\n\r\n", b"\n\n")
_MARK: Final = b"\xef\xbb\xbf"
_DOUBLED_CR: Final = re.compile(rb"[^\r\n]{0,1000}\r\r\n")  # LF of a CRLF was converted to CRLF again
_FIELD: Final = re.compile(rb"([!-9;-~]{1,200})[ \t]*:(.*)", re.DOTALL)
_SPACED: Final = re.compile(rb"^([!-9;-~]{1,200})[ \t]++:")
_HEADER_LINE: Final = re.compile(rb"[!-9;-~]{1,200}:|[ \t]|From ")
_MIME: Final = re.compile(rb"(?:content-[!-9;-~]{1,80}|mime-version):", re.IGNORECASE)
_BARE_CR: Final = re.compile(rb"\r(?=[^\n])")
_ID: Final = re.compile(r"<([^<>]{1,2000})>")
_SPACES: Final = re.compile(r"\s+")
_ADDRESS: Final = re.compile(
    r'(?:[^\s@"<>(),;:\\]++|"(?:[^"\\]++|\\.)*+")@(?:[^\s@"<>(),;:\\\[\]]++|\[[^\s@"<>()\[\]]++\])', re.DOTALL
)
#: Text in a name that people take for an address.
_SHOWN: Final = re.compile(r"""[^\s@"'<>()\[\],;:]{1,64}@[^\s@"'<>()\[\],;:]+""")


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a header in order: names in lower case, values unfolded, as bytes. `head` is the raw header."""

    items: Sequence[tuple[str, bytes]]
    head: bytes

    def all(self, name: str) -> list[bytes]:
        """The values of every field of that name."""
        return [value for each, value in self.items if each == name]

    def first(self, name: str) -> bytes | None:
        """The value of the first field of that name."""
        return next((value for each, value in self.items if each == name), None)


def read_fields(raw: bytes, findings: Findings) -> Fields:
    """The fields of `raw`, within the bounds above; never raises. Lines that are not headers are skipped and flagged."""
    raw = readable(raw[: 2 * HEADER_BLOCK])
    end = _end_of_header(raw)
    if end < 0:
        end = min(len(raw), HEADER_BLOCK)
        if len(raw) > HEADER_BLOCK:
            findings.flag("header_block_too_large")
    items: list[tuple[str, bytearray]] = []
    for number, line in enumerate(_lines(raw[:end])):
        if not line:
            continue
        if line[:1] in (b" ", b"\t") and items:
            _fold(items[-1][1], line, findings)
            continue
        named = _FIELD.match(line)
        if named and len(items) < MAX_HEADERS:
            items.append((named[1].decode("ascii").lower(), bytearray()))
            _fold(items[-1][1], named[2], findings)
        elif named:
            findings.flag("too_many_headers")
        elif number or not line.startswith(b"From "):
            findings.flag("malformed_header")
    if not items:
        findings.flag("no_headers")
    return Fields([(name, bytes(value)) for name, value in items], raw[:end])


def readable(raw: bytes) -> bytes:
    """The mail without a byte order mark, an mbox line, and doubled CRs, so that its header can be parsed."""
    raw = raw.removeprefix(_MARK)
    if raw.startswith(b">From "):
        raw = raw.partition(b"\n")[2]
    return raw.replace(b"\r\r\n", b"\r\n") if _DOUBLED_CR.match(raw) else raw


def plain_header(raw: bytes) -> bytes:
    """The mail with its header rewritten so that the standard library reads all of it, as `read_fields` does.

    The library ends a line at CR alone, and the header at a space before a colon or at a line that is not a header. Such a line
    is removed if MIME headers follow it; otherwise it stays, because the text may begin there.
    """
    raw = readable(raw)
    end = _end_of_header(raw[: 2 * HEADER_BLOCK])
    if end < 0:
        return raw
    head = raw[:end]
    lines = [line + b"\n" for line in head[:-1].split(b"\n")] if b"\n" in head else head.splitlines(keepends=True)
    mended = [_SPACED.sub(rb"\1:", _BARE_CR.sub(b" ", line)) for line in lines]
    last = max((number for number, line in enumerate(mended) if _MIME.match(line)), default=-1)
    kept = [line for line in mended[: last + 1] if _HEADER_LINE.match(line)]
    text = next((number for number, line in enumerate(mended) if number > last and not _HEADER_LINE.match(line)), len(lines))
    plain = b"".join([*kept, *mended[last + 1 : text], *lines[text:]])
    return raw if plain == head else plain + raw[end:]


def date(raw: bytes) -> datetime | None:
    """The mail's Date in UTC; None if it is missing or cannot be parsed. Never raises."""
    return date_of(read_fields(raw, Findings()), Findings())


def look_for_oddities(fields: Fields, raw: bytes, findings: Findings) -> None:
    """Flags anomalies of the header as a whole."""
    for name in _ONCE:
        if len(fields.all(name)) > 1:
            findings.flag("duplicate_from" if name == "from" else "duplicate_header", name)
    head = fields.head
    if b"\0" in head:
        findings.flag("nul", "in the header")
    crlf = head.count(b"\r\n")
    if head.count(b"\r") != crlf or (crlf and head.count(b"\n") != crlf) or _DOUBLED_CR.match(raw):
        findings.flag("bare_line_ends", "in the header")
    for name, flag in (("from", "no_from"), ("date", "no_date"), ("message-id", "no_message_id")):
        if fields.first(name) is None:
            findings.flag(flag)  # type: ignore[arg-type]


def addresses(fields: Fields, name: str, findings: Findings) -> tuple[Address, ...]:
    """The mailboxes in all fields of that name; groups are flattened. Guesses are flagged.

    A name that contains another address than the mailbox's own is flagged too: mail programs display the name.
    """
    found: list[Address] = []
    with findings.flagging_errors("malformed_address", name):
        for value in fields.all(name):  # each by itself: a quote left open in one does not swallow the next
            for each in read_list(header_text(value, findings)):
                if not each.name and not each.address:
                    continue
                if len(found) == MAX_ADDRESSES:
                    findings.flag("too_many_addresses", name)
                    return tuple(found)
                found.append(Address(phrase(each.name, findings, MAX_NAME), one_line(each.address, MAX_ADDRESS)))
                if each.odd or not _ADDRESS.fullmatch(found[-1].address):
                    findings.flag("malformed_address", f"{name}: {each.address}")
                if any(shown.lower() != each.address.lower() for shown in _SHOWN.findall(found[-1].name)):
                    findings.flag("address_in_name", f"{name}: {found[-1].name} <{each.address}>")
    return tuple(found)


def sender(fields: Fields, findings: Findings) -> str:
    """The address that the mail is from, in lower case: the first in From, else in Sender, else in Return-Path; else "".

    If there are several From headers, the first counts, as it is the first in the mail's document.
    """
    names = ("from", "sender", "return-path")
    found = (each.address.lower() for name in names for each in addresses(fields, name, findings))
    return next((address for address in found if "@" in address), "")


def id_of(fields: Fields, findings: Findings) -> str | None:
    """The first Message-ID; None without one."""
    value = fields.first("message-id")
    return next(iter(ids(value, findings)), None) if value else None


def ids(value: bytes, findings: Findings) -> list[str]:
    """The distinct message ids in a value, with their angle brackets; if the value has no brackets, its first word."""
    text = header_text(value, findings)
    found = [f"<{one_line(_SPACES.sub('', each), MAX_ID)}>" for each in _ID.findall(text)]
    if not found and text.strip():
        findings.flag("malformed_message_id", text)
        found = [f"<{one_line(text.split()[0].strip('<>'), MAX_ID)}>"]
    return [each for each in dict.fromkeys(found) if each != "<>"]


def references(fields: Fields, own: str | None, findings: Findings) -> tuple[str, ...]:
    """The References without the mail itself; if there are too many, the first and the last ones."""
    found = list(dict.fromkeys(each for value in fields.all("references") for each in ids(value, findings)))
    if own in found:
        findings.flag("refers_to_itself")
        found.remove(own)
    if len(found) > MAX_REFERENCES:
        findings.flag("too_many_references")
        found = [found[0], *found[1 - MAX_REFERENCES :]]
    return tuple(found)


def date_of(fields: Fields, findings: Findings) -> datetime | None:
    """The Date in UTC; None if it is missing or cannot be parsed, which is flagged."""
    value = fields.first("date")
    if value is None:
        return None
    try:
        moment = parsedate_to_datetime(one_line(header_text(value, findings), 200))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except Exception:  # noqa: BLE001 - parsedate_to_datetime raises four kinds of errors, and more in other versions
        findings.flag("bad_date", one_line(header_text(value, findings), 100))
        return None


def _end_of_header(raw: bytes) -> int:
    """The offset after the first empty line; -1 if there is none within bounds."""
    if raw[:1] in (b"\n", b"\r"):
        return 2 if raw[:2] == b"\r\n" else 1
    ends = [(at, at + len(mark)) for mark in _ENDS if (at := raw.find(mark, 0, HEADER_BLOCK)) >= 0]
    if (at := raw.find(b"\r\r", 0, HEADER_BLOCK)) >= 0 and b"\n" not in raw[:at]:
        ends.append((at, at + 2))
    return min(ends)[1] if ends else -1


def _lines(head: bytes) -> list[bytes]:
    """The lines of a header. CR alone ends a line only if there is no LF; otherwise it is a character (RFC 5322 §4.1).

    If it always ended a line, we alone would see a sender in `Subject: x<CR>From: ...`.
    """
    if b"\n" in head:
        return [line.removesuffix(b"\r") for line in head.split(b"\n")]
    return head.split(b"\r")


def _fold(value: bytearray, line: bytes, findings: Findings) -> None:
    piece = line.strip(b" \t\0")
    left = ONE_HEADER - len(value) - 1
    if len(piece) > left:
        findings.flag("header_too_long")
        piece = piece[: max(0, left)]
    if value and piece:
        value += b" "
    value += piece
