"""A message as AMQP 0-9-1 has it on the wire, for the few properties that ours have: a fraction of the time that pika takes."""

import struct
from collections.abc import Mapping
from typing import Any, Final

from pika import BasicProperties

from workers.window import Outgoing

_METHOD, _HEADER, _BODY, _END = 1, 2, 3, b"\xce"
_OVERHEAD: Final = 8  # bytes of a frame around what it holds
_PUBLISH: Final = struct.pack(">HHH", 60, 40, 0)  # basic.publish, and a field that is not used
_BASIC: Final = 60

_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE, _MESSAGE_ID = 1 << 15, 1 << 13, 1 << 12, 1 << 7

_frame = struct.Struct(">BHI").pack
_content = struct.Struct(">HHQH").pack
_text = struct.Struct(">cI").pack
_size = struct.Struct(">I").pack


def encoded(channel: int, message: Outgoing, frame_max: int) -> list[bytes] | None:
    """The bytes that publish `message`; None for what only pika knows: other properties, or headers that are no text.

    Raises ValueError when its properties do not fit into a frame of `frame_max` bytes, and for a name of more than 255.
    """
    header = _header(message.properties, len(message.body))
    if header is None:
        return None
    if len(header) + _OVERHEAD > frame_max:
        raise ValueError(f"the message's properties do not fit into a frame of {frame_max} bytes")
    flag = b"\x01" if message.mandatory else b"\x00"
    method = _PUBLISH + _short(message.exchange) + _short(message.routing_key) + flag
    frames = [_frame(_METHOD, channel, len(method)), method, _END, _frame(_HEADER, channel, len(header)), header, _END]
    body, most = message.body, frame_max - _OVERHEAD
    for at in range(0, len(body), most):
        piece = body[at : at + most]
        frames += (_frame(_BODY, channel, len(piece)), piece, _END)
    return frames


def _header(given: BasicProperties, size: int) -> bytes | None:
    flags, pieces = 0, [b""]
    for name, value in vars(given).items():
        if value is None:
            continue
        if name == "content_type":
            flags |= _CONTENT_TYPE
            pieces.append(_short(value))
        elif name == "headers":
            flags |= _HEADERS
            table = _table(value)
            if table is None:
                return None
            pieces.append(table)
        elif name == "delivery_mode":
            flags |= _DELIVERY_MODE
            pieces.append(bytes((value,)))
        elif name == "message_id":
            flags |= _MESSAGE_ID
            pieces.append(_short(value))
        else:
            return None
    pieces[0] = _content(_BASIC, 0, size, flags)
    return b"".join(pieces)


def _table(headers: Mapping[str, Any]) -> bytes | None:
    pieces = [b""]
    for name, value in headers.items():
        if type(value) is not str:
            return None
        text = value.encode()
        pieces += (_short(name), _text(b"S", len(text)), text)
    table = b"".join(pieces)
    return _size(len(table)) + table


def _short(text: str) -> bytes:
    raw = text.encode()
    return bytes((len(raw),)) + raw  # raises ValueError beyond 255
