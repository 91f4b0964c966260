"""AMQP header tables, read and written without loss and without end.

Four things pika does would let whoever may publish stop the ingest worker, which would be handed the same message again and
again, or would change what came: it dies of a timestamp beyond the year 9999 and of tables nested thousands deep, gives bytes
for names that are not UTF-8, and cuts the fraction off floating-point numbers, which it cannot write at all.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from struct import Struct
from typing import Any, Final

from pika import data

from schemas.message import Opaque

DEEPEST: Final = 32  # tables and arrays within each other; what is deeper stays as it came

_TEXT: Final = ord("S")
_LENGTH: Final = Struct(">I")
_NUMBERS: Final = {b"d": Struct(">d"), b"f": Struct(">f"), b"l": Struct(">q"), b"L": Struct(">q")}
_TIME: Final = Struct(">Q")

_decode_other: Final[Callable[[bytes, int], tuple[Any, int]]] = data.decode_value
_encode_other: Final[Callable[[list[bytes], Any], int]] = data.encode_value
_encode_short: Final[Callable[[list[bytes], Any], int]] = data.encode_short_string


@cache
def install() -> None:
    """Makes pika read and write tables with what is here, in the whole process."""
    data.decode_short_string = decode_short_string
    data.decode_table = decode_table
    data.decode_value = decode_value
    data.encode_short_string = encode_short_string
    data.encode_value = encode_value


def decode_short_string(encoded: bytes, offset: int) -> tuple[str, int]:
    """A name or a property. What is not UTF-8 becomes lone surrogates, which are refused where it matters."""
    end = offset + 1 + encoded[offset]
    return encoded[offset + 1 : end].decode("utf-8", "surrogateescape"), end


def decode_table(encoded: bytes, offset: int, depth: int = 0) -> tuple[dict[str, Any], int]:
    """A table, and where it ends."""
    end = _end(encoded, offset)
    offset += 4
    table: dict[str, Any] = {}
    while offset < end:
        at = offset + 1 + encoded[offset]
        name = encoded[offset + 1 : at].decode("utf-8", "surrogateescape")
        if encoded[at] == _TEXT:  # nearly all are, and calls cost more than this
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
    """A value with its type before it, and where it ends."""
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
    """Writes what `decode_short_string` reads."""
    return _encode_short(pieces, value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape"))


def encode_value(pieces: list[bytes], value: Any) -> int:
    """Writes what `decode_value` reads."""
    if isinstance(value, float):
        pieces.append(b"d" + _NUMBERS[b"d"].pack(value))
    elif isinstance(value, Opaque):
        pieces.append(value.field)
    else:
        return _encode_other(pieces, value)
    return len(pieces[-1])


def _decode_text(encoded: bytes, offset: int) -> tuple[str | bytes, int]:
    """A long string: text where it is UTF-8, which AMQP does not ask for."""
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
    """Where that ends which begins with its length."""
    return offset + 4 + int(_LENGTH.unpack_from(encoded, offset)[0])
