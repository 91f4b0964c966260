"""JSON from strangers: what it would take in memory is estimated from its bytes before anything is made of it.

Objects of Python are far larger than the text they come from: 64 MiB of `[[],[],...` become 2 GB. Counting is a scan in C,
20 ms for 64 MiB, and over-estimates where commas and brackets stand in strings. How deep JSON may nest is the parsers' own
bound: some 1,000 levels, each of which costs no more than any other value.
"""

import re
from typing import Any, Final

import orjson

from pipeline.errors import Rejected

FREE: Final = 128 * 1024 * 1024  # bytes that any document may take, however small; what 1 MiB can become is less
TIMES: Final = 3  # or so many times its size, if that is more: with the body itself four

# Bytes, measured with the parser that takes most of them (`pipeline.formats.extraction.parse`), each value with its place in a
# container.
_VALUE: Final = 128
_OBJECT: Final = 320
_ARRAY: Final = 64
_HARMLESS: Final = FREE // _OBJECT  # bytes of JSON that cannot take more than is free

_LEADS: Final = [bytes([lead]) for lead in range(0xF0, 0xF5)]
_ESCAPED: Final = re.compile(rb"\\u[dD][89abAB]")


class TooManyValues(Rejected):
    """The JSON may be right; it is not read."""

    def __init__(self) -> None:
        super().__init__("malformed", "the JSON holds too many values to be read, for its size: send less at once")


def check_size(body: bytes) -> None:
    """Raises `TooManyValues` when the JSON in `body` would take more than `FREE` and more than `TIMES` its size."""
    size = len(body)
    if size <= _HARMLESS:
        return
    values = _VALUE * body.count(b",") + _OBJECT * body.count(b"{") + _ARRAY * body.count(b"[")
    room = max(FREE, TIMES * size) - values
    if room < size or (room < 4 * size and _is_wide(body)):
        raise TooManyValues


def _is_wide(body: bytes) -> bool:
    """Whether it holds a character beyond the basic plane: one makes all of a text four bytes wide."""
    return any(lead in body for lead in _LEADS) or (b"\\u" in body and _ESCAPED.search(body) is not None)


def members(body: bytes) -> dict[str, Any]:
    """The members of the JSON object in `body`; empty when it is none, which is not parsed. Raises as `check_size`."""
    return found if body.lstrip()[:1] == b"{" and isinstance(found := loads(body), dict) else {}


def loads(body: bytes) -> Any:
    """The JSON in `body`; None when it is none. Raises as `check_size`."""
    check_size(body)
    try:
        return orjson.loads(body)
    except ValueError:
        return None
