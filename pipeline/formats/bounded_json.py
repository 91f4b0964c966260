"""JSON from untrusted senders: the memory that it would take is estimated from its bytes before it is parsed.

Python objects are far larger than the text they come from: 64 MiB of `[[],[],...` become 2 GB. The count is a scan in C, 20 ms
for 64 MiB, and over-estimates if strings hold commas and brackets. The parsers themselves bound the nesting depth, to some
1,000 levels, each of which takes no more memory than any other value.
"""

import codecs
import re
from typing import Any, Final

import orjson

from pipeline.errors import Rejected

FREE: Final = 128 * 1024 * 1024  # bytes that any document may take; 1 MiB of JSON cannot become more
TIMES: Final = 3  # or this many times its size, if that is more; with the body itself four

# Bytes for each value with its place in a container, measured with the parser that takes most memory
# (`pipeline.formats.extraction.parse`).
_VALUE: Final = 128
_OBJECT: Final = 320
_ARRAY: Final = 64
_HARMLESS: Final = FREE // _OBJECT  # bytes of JSON that cannot take more than `FREE`

_PIECE: Final = 64 * 1024  # bytes that are decoded at once
_UTF8: Final = codecs.getincrementaldecoder("utf-8")
_LEADS: Final = [bytes([lead]) for lead in range(0xF0, 0xF5)]
_ESCAPED: Final = re.compile(rb"\\u[dD][89abAB]")


class TooManyValues(Rejected):
    """The JSON may be valid, but would take too much memory, so it is not parsed."""

    def __init__(self) -> None:
        super().__init__("malformed", "the JSON holds too many values to be read, for its size: send less at once")


def check_size(body: bytes) -> None:
    """Raises `TooManyValues` when the JSON in `body` would take more than `FREE` and more than `TIMES` its size."""
    size = len(body)
    if size <= _HARMLESS:
        return
    values = _VALUE * body.count(b",") + _OBJECT * body.count(b"{") + _ARRAY * body.count(b"[")
    left = max(FREE, TIMES * size) - values
    if left < size or (left < 4 * size and _is_wide(body)):
        raise TooManyValues


def _is_wide(body: bytes) -> bool:
    """Whether it holds a character beyond the Basic Multilingual Plane: a text with one takes 4 bytes a character."""
    return any(lead in body for lead in _LEADS) or (b"\\u" in body and _ESCAPED.search(body) is not None)


def _is_utf8(body: bytes) -> bool:
    """Whether it is UTF-8, as all JSON is (RFC 8259, section 8.1); a file of another kind hardly ever is."""
    decoder = _UTF8()
    try:
        for at in range(0, len(body), _PIECE):
            decoder.decode(body[at : at + _PIECE])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def members(body: bytes) -> dict[str, Any]:
    """The members of the JSON object in `body`; empty for anything else, which is not parsed. Raises as `check_size`."""
    return found if body.lstrip()[:1] == b"{" and isinstance(found := loads(body), dict) else {}


def loads(body: bytes) -> Any:
    """The JSON value in `body`; None when it is not JSON. Raises as `check_size`."""
    try:
        check_size(body)
    except TooManyValues:
        if _is_utf8(body):
            raise
        return None  # `check_size` cannot tell: other parsers read UTF-16 too
    try:
        return orjson.loads(body)
    except ValueError:
        return None
