"""A codec for AMQP header tables that loses nothing and fails on no input.

With pika's codec a publisher could crash the ingest worker, again and again as the broker redelivers the message, or have
values changed: pika fails on a timestamp beyond the year 9999 and on tables nested thousands deep, returns bytes for names
that are not UTF-8, and cuts the fraction off floating-point numbers, which it cannot write at all.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from struct import Struct
from typing import Any, Final

from pika import data

from schemas.message import Opaque

DEEPEST: Final = 32  # levels of nested tables and arrays; deeper ones are kept encoded

_TEXT: Final = ord("S")
_LENGTH: Final = Struct(">I")
_NUMBERS: Final = {b"d": Struct(">d"), b"f": Struct(">f"), b"l": Struct(">q"), b"L": Struct(">q")}
_TIME: Final = Struct(">Q")

_decode_other: Final[Callable[[bytes, int], tuple[Any, int]]] = data.decode_value
_encode_other: Final[Callable[[list[bytes], Any], int]] = data.encode_value
_encode_short: Final[Callable[[list[bytes], Any], int]] = data.encode_short_string


@cache
def install() -> None:
    """Make pika use this codec in the whole process."""
    data.decode_short_string = decode_short_string
    data.decode_table = decode_table
    data.decode_value = decode_value
    data.encode_short_string = encode_short_string
    data.encode_value = encode_value


def decode_short_string(encoded: bytes, offset: int) -> tuple[str, int]:
    """Decode a name or property; give it and its end. Invalid UTF-8 becomes lone surrogates, refused where used."""
    end = offset + 1 + encoded[offset]
    return encoded[offset + 1 : end].decode("utf-8", "surrogateescape"), end


def decode_table(encoded: bytes, offset: int, depth: int = 0) -> tuple[dict[str, Any], int]:
    """Decode a table; give it and its end."""
    end = _end(encoded, offset)
    offset += 4
    table: dict[str, Any] = {}
    while offset < end:
        at = offset + 1 + encoded[offset]
        name = encoded[offset + 1 : at].decode("utf-8", "surrogateescape")
        if encoded[at] == _TEXT:  # inlined: nearly all values are text, and a call would cost more
            start = at + 5
            offset = start + _LENGTH.unpack_from(encoded, at + 1)[0]
            try:
                table[name] = encoded[start:offset].decode()
            except UnicodeDecodeError:
                table[name] = encoded[start:offset]
        else:
            table[name], offset = decode_value(encoded, at, depth)
    return table, offset


def decode_value(encoded: bytes, offset: int, depth: int = 0) -> tuple[Any, int]:
    """Decode a value that is preceded by its type; give it and its end."""
    kind, start = encoded[offset : offset + 1], offset + 1
    if kind == b"S":
        return _decode_text(encoded, start)
    if kind in (b"F", b"A"):
        end = _end(encoded, start)
        if depth >= DEEPEST:
            return Opaque(bytes(encoded[offset:end])), end
        return decode_table(encoded, start, depth + 1) if kind == b"F" else _decode_array(encoded, start + 4, end, depth + 1)
    if kind in _NUMBERS:
        return _NUMBERS[kind].unpack_from(encoded, start)[0], start + _NUMBERS[kind].size
    if kind == b"T":
        return _decode_time(encoded, offset), start + _TIME.size
    return _decode_other(encoded, offset)


def encode_short_string(pieces: list[bytes], value: str | bytes) -> int:
    """Encode what `decode_short_string` decodes."""
    return _encode_short(pieces, value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape"))


def encode_value(pieces: list[bytes], value: Any) -> int:
    """Encode what `decode_value` decodes."""
    if isinstance(value, float):
        pieces.append(b"d" + _NUMBERS[b"d"].pack(value))
    elif isinstance(value, Opaque):
        pieces.append(value.field)
    else:
        return _encode_other(pieces, value)
    return len(pieces[-1])


def _decode_text(encoded: bytes, offset: int) -> tuple[str | bytes, int]:
    """A long string and its end: text if it is UTF-8, which AMQP does not require, else bytes."""
    end = _end(encoded, offset)
    content = encoded[offset + 4 : end]
    try:
        return content.decode(), end
    except UnicodeDecodeError:
        return content, end


def _decode_array(encoded: bytes, offset: int, end: int, depth: int) -> tuple[list[Any], int]:
    values = []
    while offset < end:
        value, offset = decode_value(encoded, offset, depth)
        values.append(value)
    return values, offset


def _decode_time(encoded: bytes, offset: int) -> datetime | Opaque:
    (seconds,) = _TIME.unpack_from(encoded, offset + 1)
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return Opaque(bytes(encoded[offset : offset + 1 + _TIME.size]))


def _end(encoded: bytes, offset: int) -> int:
    """The end of a field that is preceded by its length."""
    return offset + 4 + int(_LENGTH.unpack_from(encoded, offset)[0])
