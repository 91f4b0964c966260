"""The rows of an answer to LIST (RFC 3501 §7.2.2), parsed one by one, so that a malformed one hides no other folder."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from imapclient.exceptions import ProtocolError
from imapclient.imap_utf7 import decode
from imapclient.response_parser import parse_response

_UNREADABLE: Final = frozenset({b"\\noselect", b"\\nonexistent"})
#: A row whose name contains unescaped quotes, as some servers send it.
_LOOSE: Final = re.compile(rb'\((?P<flags>[^)]*)\) +(?:NIL|"[^"]*"|"\\\\"|"\\"") +"?(?P<name>.*?)"?', re.IGNORECASE | re.DOTALL)


def names(data: Sequence[Any]) -> Iterator[str]:
    """The names of the folders that can be read. A malformed row is returned as it is; opening it then fails."""
    for row in _rows(data):
        flags, name = _parsed(row)
        if not {flag.lower() for flag in flags} & _UNREADABLE:
            yield _decoded(name)


def _rows(data: Sequence[Any]) -> Iterator[list[Any]]:
    """The rows: each is a line, or a line that ends in a literal, the literal, and the rest after it."""
    row: list[Any] = []
    for piece in data:
        if piece is not None and (piece or row):
            row.append(piece)
        if row and not isinstance(piece, tuple):
            yield row
            row = []
    if row:
        yield row


def _parsed(row: list[Any]) -> tuple[Iterable[bytes], bytes]:
    try:
        flags, _, name = parse_response([piece for piece in row if piece])
    except (ProtocolError, ValueError, TypeError, IndexError, RecursionError):
        return _loosely(row)
    if not isinstance(flags, tuple) or not isinstance(name, bytes | int):
        return _loosely(row)
    return [flag for flag in flags if isinstance(flag, bytes)], name if isinstance(name, bytes) else str(name).encode()


def _loosely(row: list[Any]) -> tuple[Iterable[bytes], bytes]:
    line = b" ".join(part for piece in row for part in (piece if isinstance(piece, tuple) else (piece,)))
    match = _LOOSE.fullmatch(line)
    return ((), line) if match is None else (match["flags"].split(), match["name"])


def _decoded(name: bytes) -> str:
    """A name in modified UTF-7 (RFC 3501 §5.1.3), or else in UTF-8."""
    try:
        return str(decode(name))
    except ValueError:
        return name.decode("utf-8", "replace")
