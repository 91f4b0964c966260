"""Attachments in formats other than MIME: TNEF (winmail.dat) and uuencode."""

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import tnefparse.mapi
from tnefparse import TNEF
from tnefparse.util import uint32

from pipeline.mail.charsets import decoded, storable
from pipeline.mail.flags import Findings
from pipeline.mail.html import text_of_html

TNEF_TYPES: Final = ("application/ms-tnef", "application/vnd.ms-tnef")
MAX_TNEF: Final = 32 * 1024 * 1024  # bytes
MAX_OBJECTS: Final = 1000  # in one TNEF: the library copies the rest of the data for each
MAX_COPIED: Final = 4 * 1024 * 1024 * 1024  # bytes that the library may copy
MAX_FILES: Final = 1000

#: Counts up to this are accepted even in a TNEF with fewer bytes.
_FEW: Final = 65_536

_BEGIN: Final = re.compile(rb"^begin ([0-7]{3,4}) ([^\r\n]{1,255})\r?\n", re.MULTILINE)
_END: Final = re.compile(rb"^end[ \t]*\r?$", re.MULTILINE)
_HEAD: Final = 6  # bytes before the first object of a TNEF
_OBJECT: Final = 11  # bytes of an object in addition to its data


@dataclass(frozen=True, slots=True)
class Enclosed:
    """A file that was found inside a part."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """The files and the text of a TNEF."""

    files: tuple[Enclosed, ...] = ()
    text: str = ""


def _uint32(data: bytes, offset: int = 0) -> int:
    """A number that is a plausible count. Raises ValueError: with an impossible one, tnefparse would loop for days."""
    number = int(uint32(data, offset))
    if number > max(len(data), _FEW):
        raise ValueError(f"{number} of something in {len(data)} bytes")
    return number


tnefparse.mapi.uint32 = _uint32


def open_tnef(data: bytes, findings: Findings) -> Opened:
    """The files and the text of a winmail.dat; empty, and flagged, if it cannot be read."""
    files: tuple[Enclosed, ...] = ()
    text = ""
    with findings.flagging_errors("malformed_tnef"):
        _check(data)
        tnef = TNEF(data, do_checksum=False)
        text = _body(tnef, findings)
        files = tuple(Enclosed(_name(each), each.data) for each in tnef.attachments[:MAX_FILES] if isinstance(each.data, bytes))
    return Opened(files, text)


def uuencoded(text: bytes, findings: Findings) -> tuple[list[Enclosed], bytes]:
    """The uuencoded files in a text, and the text without them."""
    found: list[Enclosed] = []
    rest: list[bytes] = []
    at = 0
    for begin in _BEGIN.finditer(text):
        if begin.start() < at:
            continue
        end = _END.search(text, begin.end())
        body = text[begin.end() : end.start() if end else len(text)]
        data = b"".join(_unpacked(body, findings))
        if not data and not end:
            break  # a sentence that begins with "begin"
        if end is None:
            findings.flag("malformed_uuencode", "it has no end")
        found.append(Enclosed(begin[2].decode("utf-8", "replace").strip(), data))
        rest.append(text[at : begin.start()])
        at = end.end() if end else len(text)
        if len(found) == MAX_FILES or end is None:
            break
    return found, b"".join([*rest, text[at:]])


def _unpacked(body: bytes, findings: Findings) -> Iterator[bytes]:
    for line in body.splitlines():
        if not line or line == b"`":
            continue
        try:
            yield binascii.a2b_uu(line)
        except binascii.Error:
            # Some encoders pad differently; the first character gives the length of the data.
            wanted = (((line[0] - 32) & 63) * 4 + 5) // 3
            try:
                yield binascii.a2b_uu(line[:wanted])
            except binascii.Error as error:
                findings.flag("malformed_uuencode", str(error))
                return


def _check(data: bytes) -> None:
    """Raises ValueError for data on which tnefparse would take too long."""
    if len(data) > MAX_TNEF:
        raise ValueError(f"{len(data)} bytes")
    at, objects = _HEAD, 0
    while at + _OBJECT < len(data) and objects <= MAX_OBJECTS:
        at += _OBJECT + int.from_bytes(data[at + 5 : at + 9], "little")
        objects += 1
    if objects > MAX_OBJECTS or objects * len(data) > MAX_COPIED:
        raise ValueError(f"{objects} objects in {len(data)} bytes")


def _name(attachment: object) -> str:
    try:
        name = attachment.long_filename()  # type: ignore[attr-defined]
    except UnicodeDecodeError:
        name = attachment._name.decode("cp1252", "replace")  # type: ignore[attr-defined]  # noqa: SLF001 - it has no other
    return name.decode("cp1252", "replace") if isinstance(name, bytes) else str(name)


def _body(tnef: TNEF, findings: Findings) -> str:
    if isinstance(tnef.body, str | bytes) and tnef.body:
        text = tnef.body if isinstance(tnef.body, str) else decoded(tnef.body, "", findings)
        return storable(text.rstrip("\0"))
    if tnef.htmlbody:
        source = tnef.htmlbody if isinstance(tnef.htmlbody, str) else decoded(tnef.htmlbody, "", findings)
        return text_of_html(source, findings)
    return ""
