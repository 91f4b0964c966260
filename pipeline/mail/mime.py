"""The parts of a mail, by the standard library's parser, with the bounds that the parser itself lacks."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.errors import MessageDefect
from email.message import Message
from email.parser import BytesFeedParser
from email.policy import compat32
from typing import Any, Final

from pipeline.mail.charsets import header_text
from pipeline.mail.flags import Findings
from pipeline.mail.headers import HEADER_BLOCK, MAX_HEADERS, ONE_HEADER, plain_header

MAX_SIZE: Final = 64 * 1024 * 1024  # bytes read of a mail; the parser needs about five times as much memory
MAX_LINES: Final = 1_500_000  # the parser makes an object of each
MAX_DEPTH: Final = 100
MAX_PARTS: Final = 1000
MAX_PARAMETERS: Final = 8 * 1024  # characters of a header with parameters; the time is quadratic in their number
CHUNK: Final = 64 * 1024  # bytes between two checks of the time

_NO_MAIL: Final = re.compile("^message/")
_WITH_PARAMETERS: Final = ("content-type", "content-disposition")
_FOLD: Final = re.compile(r"[\r\n]++")
_FOLDED_BOUNDARY: Final = re.compile(r'boundary[ \t]*=[ \t]*"([^"\r\n]*+[\r\n][^"]*+)"', re.IGNORECASE)
_FOLDS: Final = re.compile(r"[\r\n]++[ \t]*+")
_MAX_ENDS: Final = 10  # ends of one boundary that a nested multipart uses too
_MAX_FOLDED: Final = 5  # folded boundaries for which the whole mail is searched


class _Stop(Exception):
    """A bound was reached: parsing stops, and the parts read so far are kept."""


@dataclass(slots=True)
class _Reading:
    """State shared by the parts of one mail while it is parsed."""

    findings: Findings
    raw: bytes = field(default=b"", repr=False)
    folded: int = 0

    def unfolded(self, value: str) -> str:
        """The value of a header on one line (RFC 5322 §2.2.3).

        Some senders fold a boundary where it has no space, or add one: the spelling that occurs in the mail is used.
        """
        found = _FOLDED_BOUNDARY.search(value)
        if found and self.folded < _MAX_FOLDED:
            self.folded += 1
            candidates = [_FOLD.sub("", found[1]), _FOLDS.sub("", found[1]), _FOLDS.sub(" ", found[1])]
            there = (each for each in candidates if b"--" + each.encode("utf-8", "replace") in self.raw)
            value = value[: found.start(1)] + next(there, candidates[0]) + value[found.end(1) :]
        return _FOLD.sub("", value)


class Part(Message):
    """A part of a mail. An attached mail is a single part; its content is not parsed."""

    def __init__(self, reading: _Reading) -> None:
        super().__init__(compat32)
        self._payload: Any
        self._reading = reading
        self._bytes_left = HEADER_BLOCK
        self._headers_left = MAX_HEADERS
        self.depth = 0

    def set_raw(self, name: str, value: Any) -> None:
        """Take a header from the parser, within bounds."""
        if not value.isascii():  # the parser keeps such bytes as surrogates
            value = header_text(value.encode("utf-8", "surrogateescape"), self._reading.findings)
        if "\n" in value or "\r" in value:
            value = self._reading.unfolded(value)
        most = MAX_PARAMETERS if name.lower() in _WITH_PARAMETERS else ONE_HEADER
        if len(value) > most:
            self._reading.findings.flag("header_too_long", name[:80])
            value = value[:most]
        self._bytes_left -= len(name) + len(value)
        self._headers_left -= 1
        if self._bytes_left < 0 or self._headers_left < 0:
            self._reading.findings.flag("header_block_too_large" if self._bytes_left < 0 else "too_many_headers")
        else:
            super().set_raw(name, value)

    def attach(self, payload: Any) -> None:
        """Take a part from the parser, within bounds."""
        payload.depth = self.depth + 1
        super().attach(payload)
        if payload.depth > MAX_DEPTH:
            self._reading.findings.flag("too_deep")
            raise _Stop

    @property
    def kind(self) -> str:
        """The content type, in lower case."""
        return super().get_content_type()

    @property
    def bytes(self) -> bytes:
        """The content with its transfer encoding not undone; b"" for a multipart."""
        return self._payload.encode("ascii", "surrogateescape") if isinstance(self._payload, str) else b""

    def get_content_type(self) -> str:
        """The content type for the parser, which would parse message/*: it sees an attached mail or a report as a leaf."""
        return _NO_MAIL.sub("application/", self.kind)

    def get_content_maintype(self) -> str:
        """The main type of `get_content_type`."""
        return self.get_content_type().partition("/")[0]

    def get_param(self, param: str, failobj: Any = None, header: str = "content-type", unquote: bool = True) -> Any:
        """A parameter of a header; `failobj` if it is missing, or if the parameters cannot be parsed."""
        try:
            return super().get_param(param, failobj, header, unquote)
        except Exception:  # noqa: BLE001 - bad RFC 2231 numbers alone raise three kinds of errors
            self._reading.findings.flag("malformed_mime", f"parameters of {header}")
            return failobj

    def given_name(self, param: str, header: str) -> Any:
        """A parameter; if it occurs in several forms, the one of RFC 2231, in whatever order (RFC 6266 §4.3)."""
        named: list[Any] = []
        with self._reading.findings.flagging_errors("malformed_mime", f"parameters of {header}"):
            named += [value for name, value in self.get_params([], header) or () if name.lower() == param]
        return next((each for each in named if isinstance(each, tuple)), named[0] if named else None)

    def leaves(self) -> "Iterator[Part]":
        """The parts that have no parts, in order."""
        if self.is_multipart():
            for each in self.children():
                yield from each.leaves()
        else:
            yield self

    def children(self) -> "list[Part]":
        """The parts of this one."""
        return [each for each in self._payload if isinstance(each, Part)] if isinstance(self._payload, list) else []


def read_parts(raw: bytes, findings: Findings) -> Part:
    """The mail as a tree of parts. Parts beyond the bounds are missing, which is flagged; never raises."""
    reading = _Reading(findings, raw)
    made: list[Part] = []

    def make(policy: Any = None) -> Part:  # noqa: ARG001 - the parser passes it by name
        part = Part(reading)
        made.append(part)
        if len(made) > MAX_PARTS + 2:  # beside the mail itself, the parser makes one to probe `make`
            findings.flag("too_many_parts")
            raise _Stop
        findings.check_time()
        return part

    def parse(raw: bytes) -> Part:
        parser: BytesFeedParser[Any] = BytesFeedParser(make, policy=compat32)
        first = len(made)
        with findings.flagging_errors("unparsed", "MIME"), suppress(_Stop):
            _feed(parser, raw, findings)
        return made[first] if len(made) > first else Part(reading)

    root = parse(raw)
    with findings.flagging_errors("unparsed", "MIME"), suppress(_Stop):
        for part in made[1:]:
            _reopen(part, parse)
    _flag_defects(made[1:], findings)
    return root


def _reopen(part: Part, parse: Callable[[bytes], Part]) -> None:
    """Add the parts after the end of a multipart if a nested one has the same boundary: the end belonged to the nested one."""
    own = part.get_boundary() if part.children() else None
    if own is None or all(each.get_boundary() != own for each in part.children() if each.kind.startswith("multipart/")):
        return
    boundary = f"--{own}".encode("utf-8", "replace")
    rest = str(part.epilogue or "").encode("ascii", "surrogateescape")
    for _ in range(_MAX_ENDS):
        if boundary not in rest or b'"' in boundary:
            return
        more = parse(b'Content-Type: multipart/mixed; boundary="%b"\r\n\r\n%b' % (boundary[2:], rest))
        for each in more.children():
            part.attach(each)
        rest = str(more.epilogue or "").encode("ascii", "surrogateescape")


def count(root: Part) -> int:
    """The number of parts, including the mail itself."""
    return 1 + sum(count(each) for each in root.children())


def _feed(parser: "BytesFeedParser[Any]", raw: bytes, findings: Findings) -> None:
    view, lines, last = memoryview(plain_header(raw))[:MAX_SIZE], 0, b""
    if len(raw) > MAX_SIZE:
        findings.flag("too_large")
    for start in range(0, len(view), CHUNK):
        chunk = bytes(view[start : start + CHUNK])
        lines += chunk.count(b"\n") + chunk.count(b"\r") - (last + chunk).count(b"\r\n")
        last = chunk[-1:]
        if lines > MAX_LINES:
            findings.flag("too_many_lines")
            break
        parser.feed(chunk)
        findings.check_time()
    parser.close()


def _flag_defects(parts: list[Part], findings: Findings) -> None:
    """Flags the parser's defects: multiparts without a boundary or an end, malformed headers, and the like."""
    for part in parts:
        for defect in part.defects:
            if isinstance(defect, MessageDefect):
                findings.flag("malformed_mime", type(defect).__name__)
