"""Finds mails in mbox files, Maildirs and .eml files, and reads them one by one, byte for byte, in bounded memory."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Final, Literal

from pipeline.mail.headers import date

Form = Literal["mbox", "maildir", "eml"]
Quoting = Literal["mboxrd", "mboxo", "none"]

MAX_MAIL: Final = 64 * 1024 * 1024  # bytes
PIECE: Final = 1024 * 1024  # bytes: the longest part of a line that is read at once

_MARK: Final = b"\xef\xbb\xbf"  # the byte order mark that some programs put before UTF-8
_FROM: Final = b"From "
_QUOTED: Final[dict[Quoting, re.Pattern[bytes]]] = {
    "mboxrd": re.compile(rb"^>(>*From )", re.MULTILINE),
    "mboxo": re.compile(rb"^>(From )", re.MULTILINE),
}
_HEADER: Final = re.compile(rb"[!-9;-~]{1,200}[ \t]*:|>+From ")
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_FROM_DATE: Final = re.compile(
    rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) +(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +\d{1,2} +\d{1,2}:\d\d.{1,30}"
)
#: RFC 4155: the sender's address, then the time. In a sentence more words precede a time.
_FROM_LINE: Final = re.compile(rb'From (?:"[^"\r\n]{0,300}+"|[^\s"]){1,1000}+[ \t]++' + _FROM_DATE.pattern)
_MBOXES: Final = (".mbox", ".mbx")
_SUFFIXES: Final = (".eml", *_MBOXES)


@dataclass(frozen=True, slots=True)
class MailFile:
    """A file with one mail in it, or with many."""

    path: Path
    form: Form
    size: int


@dataclass(frozen=True, slots=True)
class FoundMail:
    """A mail as it is in its file, and when it arrived, as far as that is known. `raw` is None if it exceeds `MAX_MAIL`."""

    path: Path
    raw: bytes | None = field(repr=False)
    date: datetime
    end: int  # bytes of the file up to its end


def find_files(path: Path, form: Form | None = None) -> Iterator[MailFile]:
    """The files at `path` that hold mails, in a fixed order. Raises OSError for a file or folder that cannot be read.

    A folder with `cur` in it is a Maildir. Of other folders, files that end in .eml, .mbox or .mbx or begin as an mbox are
    taken, in subfolders too. If `path` is a file itself, it has the given form, or else the form that it looks like.
    """
    if not path.is_dir():
        yield MailFile(path, form or _looks_like(path), path.stat().st_size)
        return
    is_maildir = (path / "cur").is_dir()
    if is_maildir and form in (None, "maildir"):
        for each in (*_files_in(path / "cur"), *_files_in(path / "new")):
            yield MailFile(each, "maildir", each.stat().st_size)
    for each in sorted(path.iterdir()):
        if each.is_dir() and not each.is_symlink() and not (is_maildir and each.name in ("cur", "new", "tmp")):
            yield from find_files(each, form)
        elif not is_maildir and each.is_file() and _holds_mail(each) and form in (None, _looks_like(each)):
            yield MailFile(each, _looks_like(each), each.stat().st_size)


def read_mails(file: MailFile, quoting: Quoting = "mboxrd", *, crlf: bool = False) -> Iterator[FoundMail]:
    """The mails in a file, in their order. Raises OSError.

    The bytes are those of the file. Of an mbox, those between the separator lines, without the empty line that ends each
    mail, and without one `>` before `From ` at the beginning of a line, as `quoting` says. With `crlf` each line ends in CRLF,
    as over IMAP, so that a mail that was pulled before has the same identity.
    """
    with file.path.open("rb") as stream:
        mtime = datetime.fromtimestamp(file.path.stat().st_mtime, UTC)
        if file.form == "mbox":
            yield from (_finished(each, mtime, crlf=crlf) for each in _split(file.path, stream, quoting))
            return
        raw: bytes | None = stream.read(MAX_MAIL + 1)
        if raw is not None and len(raw) > MAX_MAIL:
            raw = None
        came = mtime if file.form == "maildir" or raw is None else date(raw) or mtime
        yield _finished(_Piece(file.path, raw, came, file.size), mtime, crlf=crlf)


@dataclass(frozen=True, slots=True)
class _Piece:
    path: Path
    raw: bytes | None
    came: datetime | None
    end: int


def _finished(piece: _Piece, mtime: datetime, *, crlf: bool) -> FoundMail:
    raw = piece.raw
    if raw is not None and crlf:
        raw = _BARE_LF.sub(b"\r\n", raw)
        raw = raw if len(raw) <= MAX_MAIL else None
    came = piece.came or (date(raw) if raw is not None else None) or mtime
    return FoundMail(piece.path, raw, came, piece.end)


def _split(path: Path, stream: IO[bytes], quoting: Quoting) -> Iterator[_Piece]:
    """The mails of an mbox.

    A separator begins with `From `. After an empty line or at the beginning of the file, it must hold a time or precede a
    header; after any other line, both, because in an mbox without quoting a sentence may begin with `From ` too.
    """
    lines: list[bytes] = []
    size, end, came, begun = 0, 0, None, False
    held, alone, empty = b"", False, True  # a possible separator; is an empty line before it; is one before the next line
    for line, whole in _pieces(stream):
        if held:
            if _separates(held, line, alone=alone):
                if begun:
                    yield _Piece(path, _joined(lines, size, quoting), came, end - len(held))
                lines, size, came, begun = [], 0, _came(held), True
            else:
                size = _kept(lines, size, held)
            held = b""
        end += len(line)
        if whole and line.endswith(b"\n") and line.removeprefix(_MARK).startswith(_FROM) and (empty or size):
            held, alone, empty = line, empty, False
            continue
        size = _kept(lines, size, line)
        begun = begun or bool(line.strip())
        empty = line in (b"\n", b"\r\n")
    if held and not (alone and _FROM_DATE.search(held)):
        size = _kept(lines, size, held)
    if begun:
        yield _Piece(path, _joined(lines, size, quoting), came, end)


def _separates(line: bytes, next_line: bytes, *, alone: bool) -> bool:
    """Whether a line that begins with `From ` is a separator; `alone`: it follows an empty line or begins the file."""
    header = _HEADER.match(next_line) is not None
    if alone:
        return header or _FROM_DATE.search(line) is not None
    return header and _FROM_LINE.match(line.removeprefix(_MARK)) is not None


def _pieces(stream: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Lines, long ones in pieces, each with whether a line begins with it."""
    begins = True
    while line := stream.readline(PIECE):
        yield line, begins
        begins = line.endswith(b"\n")


def _kept(lines: list[bytes], size: int, line: bytes) -> int:
    """Adds the line, and returns the size of the mail with it. Nothing is kept of a mail that is too large."""
    if size + len(line) <= MAX_MAIL:
        lines.append(line)
    else:
        lines.clear()
    return size + len(line)


def _joined(lines: list[bytes], size: int, quoting: Quoting) -> bytes | None:
    if size > MAX_MAIL:
        return None
    raw = b"".join(lines)
    for end in (b"\r\n", b"\n"):
        if raw.endswith(end * 2) or raw == end:
            raw = raw[: -len(end)]
            break
    pattern = _QUOTED.get(quoting)
    return pattern.sub(rb"\1", raw) if pattern else raw


def _came(line: bytes) -> datetime | None:
    """The time in a separator line, in the form of asctime; UTC if it names no zone."""
    found = _FROM_DATE.search(line)
    if found is None:
        return None
    words = found[0].decode("ascii", "replace").split()
    try:  # Mon Jun 1 10:00:00 [+0200] 2026
        year = next(word for word in reversed(words) if re.fullmatch(r"\d{4}", word))
        zone = next((word for word in words if re.fullmatch(r"[+-]\d{4}", word)), "+0000")
        return parsedate_to_datetime(f"{words[0]}, {words[2]} {words[1]} {year} {words[3]} {zone}").astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError, StopIteration):
        return None


def _files_in(folder: Path) -> list[Path]:
    return (
        [each for each in sorted(folder.iterdir()) if each.is_file() and not each.name.startswith(".")]
        if folder.is_dir()
        else []
    )


def _holds_mail(path: Path) -> bool:
    """Whether a file found in a folder is read as mail."""
    return path.suffix.lower() in _SUFFIXES or _looks_like(path) == "mbox"


def _looks_like(path: Path) -> Form:
    if path.suffix.lower() in _MBOXES:
        return "mbox"
    with path.open("rb") as stream:
        return "mbox" if stream.read(len(_MARK + _FROM)).removeprefix(_MARK).startswith(_FROM) else "eml"


def total(files: Iterable[MailFile]) -> int:
    """The sizes of all files together, in bytes."""
    return sum(file.size for file in files)
