"""The rows of an answer to FETCH, one by one: merged by sequence number, as libraries do, one could get another's body."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from imapclient.exceptions import ProtocolError
from imapclient.response_parser import gen_parsed_response

_PAIR: Final = rb'[A-Z0-9.-]+ (?:\d{1,18}|"[^"\\]*")'  # `int` raises ValueError above 4,300 digits
_NO_LITERAL: Final = re.compile(rb"\d+ \((" + _PAIR + rb"(?: " + _PAIR + rb")*)\)", re.IGNORECASE)
_BEFORE_LITERAL: Final = re.compile(rb"\d+ \(((?:" + _PAIR + rb" )*)(BODY\[[^\]]*\](?:<\d+>)?) ?\{\d+\}", re.IGNORECASE)
_BEHIND_LITERAL: Final = re.compile(rb"((?: " + _PAIR + rb")*)\)", re.IGNORECASE)
_WORDS: Final = re.compile(rb'(?<![^ ])([A-Z0-9.-]+) (\d+|"[^"]*")', re.IGNORECASE)

Row = Mapping[bytes, Any]
"""The items of one mail in a FETCH's answer, by name in upper case."""


def rows(data: Sequence[Any]) -> Iterator[Row]:
    """The rows of a FETCH's answer. Rows after one that cannot be parsed are lost; the caller requests them again.

    Rows in the most common form are parsed here; from the first other one on, by the library's parser, which accepts every form
    but takes thirty times as long for each row.
    """
    place = 0
    while place < len(data):
        read = _plain_row(data, place)
        if read is None:
            break
        row, place = read
        yield row
    answer = [each for each in data[place:] if each is not None]
    if not answer:
        return
    parsed = gen_parsed_response(answer)
    try:
        for _number in parsed:
            found = next(parsed, None)
            if isinstance(found, tuple) and len(found) % 2 == 0:
                pairs = zip(found[::2], found[1::2], strict=True)
                yield {name.upper(): value for name, value in pairs if isinstance(name, bytes)}
    except (ProtocolError, ValueError, TypeError, IndexError, RecursionError):
        return


def section(row: Row) -> bytes | None:
    """The one BODY section in a row, whatever name the server returns it under."""
    found = [value for name, value in row.items() if name.startswith(b"BODY[") and isinstance(value, bytes)]
    return found[0] if found else None


def _plain_row(data: Sequence[Any], place: int) -> tuple[Row, int] | None:
    """A row of numbers and quoted strings, with at most one section's literal, and the index after it; None for other forms."""
    first, section = data[place], None
    if isinstance(first, tuple) and place + 1 < len(data) and isinstance(data[place + 1], bytes):
        match = _BEFORE_LITERAL.fullmatch(first[0])
        behind = _BEHIND_LITERAL.fullmatch(data[place + 1])
        if match is None or behind is None:
            return None
        words, section = match[1] + behind[1], (match[2].upper(), first[1])
    else:
        match = _NO_LITERAL.fullmatch(first) if isinstance(first, bytes) else None
        if match is None:
            return None
        words = match[1]
    row: dict[bytes, Any] = {
        name.upper(): int(value) if value.isdigit() else value[1:-1] if value[:1] == b'"' else value
        for name, value in _WORDS.findall(words)
    }
    if section is not None:
        row[section[0]] = section[1]
    return row, place + (1 if section is None else 2)
