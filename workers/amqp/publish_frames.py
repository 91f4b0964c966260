"""Encodes a message as AMQP 0-9-1 frames, for the few properties that ours have, in a fraction of the time that pika takes."""

import struct
from collections.abc import Mapping
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import Any, Final

from pika import BasicProperties

from workers.amqp.confirm_window import Outgoing

_METHOD, _HEADER, _BODY, _END = 1, 2, 3, b"\xce"
_OVERHEAD: Final = 8  # bytes of a frame besides its payload
_PUBLISH: Final = struct.pack(">HHH", 60, 40, 0)  # basic.publish, and a reserved field
_BASIC: Final = 60

_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE, _MESSAGE_ID = 1 << 15, 1 << 13, 1 << 12, 1 << 7
_OURS: Final = ("content_type", "headers", "delivery_mode", "message_id")
_ours = attrgetter(*_OURS)
_foreign = attrgetter(*(name for name in vars(BasicProperties()) if name not in _OURS))
_NO_FOREIGN: Final = _foreign(BasicProperties())

_frame = struct.Struct(">BHI").pack
_content = struct.Struct(">HHQH").pack
_size = struct.Struct(">I").pack


def encoded(channel: int, message: Outgoing, frame_max: int) -> list[bytes] | None:
    """The bytes that publish `message`; None if only pika can encode it: other properties, or headers that are not text.

    Raises ValueError when its properties exceed a frame of `frame_max` bytes, or a name has more than 255 bytes.
    """
    exchange, routing_key, body, properties, mandatory = message
    size = len(body)
    header = _header(properties, size)
    if header is None:
        return None
    most = frame_max - _OVERHEAD
    if len(header) > most:
        raise ValueError(f"the message's properties do not fit into a frame of {frame_max} bytes")
    frames = [_method(channel, exchange, routing_key, mandatory), _frame(_HEADER, channel, len(header)), header]
    if 0 < size <= most:
        frames += (_END, _frame(_BODY, channel, size), body, _END)
        return frames
    frames.append(_END)
    for at in range(0, size, most):
        piece = body[at : at + most]
        frames += (_frame(_BODY, channel, len(piece)), piece, _END)
    return frames


@lru_cache(1000)
def _method(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """The first frame: the same for all messages of one source."""
    method = _PUBLISH + _short(exchange) + _short(routing_key) + (b"\x01" if mandatory else b"\x00")
    return _frame(_METHOD, channel, len(method)) + method + _END


def _header(given: BasicProperties, size: int) -> bytes | None:
    if _foreign(given) != _NO_FOREIGN:
        return None
    flags, found = 0, b""
    content_type, headers, mode, message_id = _ours(given)
    if content_type is not None:
        flags |= _CONTENT_TYPE
        found = _name(content_type)
    if headers is not None:
        flags |= _HEADERS
        table = _table(headers)
        if table is None:
            return None
        found += table
    if mode is not None:
        flags |= _DELIVERY_MODE
        found += bytes((mode,))
    if message_id is not None:
        flags |= _MESSAGE_ID
        found += _short(message_id)
    return _content(_BASIC, 0, size, flags) + found


def _table(headers: Mapping[str, Any]) -> bytes | None:
    try:
        texts = list(map(str.encode, headers.values()))
    except TypeError:
        return None
    table = b"".join(chain.from_iterable(zip(map(_entry, headers), map(_size, map(len, texts)), texts, strict=True)))
    return _size(len(table)) + table


def _short(text: str) -> bytes:
    raw = text.encode()
    return bytes((len(raw),)) + raw  # raises ValueError beyond 255


_name = lru_cache(1000)(_short)  # for content types, which are few and repeat, as do the names of headers


@lru_cache(1000)
def _entry(name: str) -> bytes:
    """The name and type that precede the value of a text header."""
    return _short(name) + b"S"
