"""Messages off the wire: the three frames of each (AMQP 0-9-1 §4.2.6) are read here, and everything else by pika.

pika makes four objects of each message and copies its buffer for each frame, which was a third of the CPU of an event. So, on
one channel, what begins with Basic.Deliver is taken out of the stream of bytes before pika sees it.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from struct import Struct
from typing import Any, Final

from pika.adapters.blocking_connection import BlockingChannel

from schemas.message import OTHERS, Message
from workers.amqp.header_tables import decode_short_string, decode_table
from workers.amqp.topology import RECEIVED

Read = Callable[[bytes, int], tuple[Any, int]]  # of what is encoded, and where it begins: the value, and where it ends
Receive = Callable[[int, bool, Message], None]  # delivery tag, whether it came before, and the message

READ: Final = 64 * 1024  # bytes at once; pika's 4 KiB are four messages

_HEAD: Final = Struct(">BHI")  # of a frame: type, channel, size
_SIZE: Final = Struct(">Q")  # of a content's body, after its class and weight
_TAG: Final = Struct(">Q")
_FLAGS: Final = Struct(">H")
_METHOD, _HEADER, _BODY, _END = 1, 2, 3, 0xCE
_AROUND: Final = _HEAD.size + 1  # bytes of a frame around its payload
_DELIVER: Final = b"\x00\x3c\x00\x3c"  # class basic, method deliver
_MOST_PLACES: Final = 10_000  # pairs of exchange and routing key that are kept decoded

#: The properties in the order of their flags, from the highest bit down, and what reads them (AMQP 0-9-1, class basic).
_PROPERTIES: Final[tuple[tuple[int, str, Read], ...]] = tuple(
    (1 << bit, name, read)
    for bit, name, read in (
        (15, "content_type", decode_short_string),
        (14, "content_encoding", decode_short_string),
        (13, "headers", decode_table),
        (12, "delivery_mode", lambda encoded, at: (encoded[at], at + 1)),
        (11, "priority", lambda encoded, at: (encoded[at], at + 1)),
        (10, "correlation_id", decode_short_string),
        (9, "reply_to", decode_short_string),
        (8, "expiration", decode_short_string),
        (7, "message_id", decode_short_string),
        (6, "timestamp", lambda encoded, at: (_TAG.unpack_from(encoded, at)[0], at + 8)),
        (5, "type", decode_short_string),
        (4, "user_id", decode_short_string),
        (3, "app_id", decode_short_string),
        (2, "cluster_id", decode_short_string),
    )
)


def take_over(channel: BlockingChannel, receivers: Mapping[bytes, Receive]) -> None:
    """Gives the messages on `channel` to `receivers`, by the tag of their consumer, in place of the consumers' callbacks.

    They are called inside of `process_data_events`, which returns when one was. Call this before the first consumer is there.
    """
    connection = channel.connection
    inner = connection._impl  # noqa: SLF001 - what is read is not pika's to dispatch; tests hold it to pika's own decoding
    stream = Deliveries(channel.channel_number, receivers, inner._on_data_available)  # noqa: SLF001
    pending = connection._channels_pending_dispatch  # noqa: SLF001

    def available(data: bytes) -> None:
        inner.bytes_received += len(data)  # by which pika tells a connection that is alive
        if stream.feed(data):
            pending.add(-1)  # no channel's number: ends process_data_events

    inner._on_data_available = available  # noqa: SLF001
    inner._transport._MAX_RECV_BYTES = READ  # noqa: SLF001


class Deliveries:
    """Takes the deliveries on one channel out of a stream of frames; what is none of theirs goes to `others`, whole frames."""

    def __init__(self, channel: int, receivers: Mapping[bytes, Receive], others: Callable[[bytes], None]) -> None:
        self._channel = channel
        self._receivers = receivers
        self._others = others
        self._rest = b""  # of a frame that is not whole yet
        self._method: tuple[Receive, int, bool, str, str] | None = None  # of the message whose frames are coming
        self._properties = b""
        self._missing = 0  # bytes of its body
        self._pieces: list[bytes] = []
        self._places: dict[bytes, tuple[str, str]] = {}

    def feed(self, data: bytes) -> bool:
        """Reads on in the stream; whether a message was received."""
        if self._rest:
            data = self._rest + data
        at, end, received = 0, len(data), False
        while end - at >= _AROUND:
            kind, channel, size = _HEAD.unpack_from(data, at)
            start, stop = at + 7, at + 8 + size
            if stop > end:
                break
            if channel != self._channel or data[stop - 1] != _END:
                self._others(data[at:stop])
            elif self._method is not None and kind in (_HEADER, _BODY):
                received |= self._content(kind, data, start, stop - 1)
            elif kind == _METHOD and data[start : start + 4] == _DELIVER and self._begin(data, start + 4, stop - 1):
                pass
            else:
                self._others(data[at:stop])
            at = stop
        self._rest = data[at:]
        return received

    def _begin(self, data: bytes, at: int, end: int) -> bool:
        """Reads the head of a message; whether its consumer is one of ours."""
        after = at + 1 + data[at]
        receive = self._receivers.get(data[at + 1 : after])
        if receive is None:
            return False
        (tag,) = _TAG.unpack_from(data, after)
        place = data[after + 9 : end]
        names = self._places.get(place) or self._place(place)
        self._method = (receive, tag, bool(data[after + 8] & 1), *names)
        return True

    def _place(self, encoded: bytes) -> tuple[str, str]:
        exchange, at = decode_short_string(encoded, 0)
        routing_key, _ = decode_short_string(encoded, at)
        if len(self._places) >= _MOST_PLACES:
            self._places.clear()
        self._places[encoded] = exchange, routing_key
        return exchange, routing_key

    def _content(self, kind: int, data: bytes, start: int, end: int) -> bool:
        """Takes a frame of the message's content; whether that was its last."""
        if kind == _HEADER:
            self._properties = data[start + 12 : end]
            (self._missing,) = _SIZE.unpack_from(data, start + 4)
            if self._missing:
                return False
            body = b""
        else:
            self._missing -= end - start
            body = data[start:end]
            if self._missing > 0:
                self._pieces.append(body)
                return False
        if self._pieces:
            body = b"".join([*self._pieces, body])
            self._pieces.clear()
        assert self._method is not None
        receive, tag, redelivered, exchange, routing_key = self._method
        self._method = None
        receive(tag, redelivered, message_of(routing_key, body, self._properties, trusted=exchange == RECEIVED))
        return True


def message_of(routing_key: str, body: bytes, properties: bytes, *, trusted: bool) -> Message:
    """The message with the properties that its content header holds."""
    (flags,) = _FLAGS.unpack_from(properties)
    message = Message(routing_key, body, trusted=trusted)
    at, others = _start(properties, flags) if flags & 1 else 2, {}
    for name, is_other, read in _plan(flags):
        value, at = read(properties, at)
        if is_other:
            others[name] = value
        else:
            setattr(message, name, value)
    message.others = others
    return message


@lru_cache(1024)
def _plan(flags: int) -> tuple[tuple[str, bool, Read], ...]:
    return tuple((name, name in OTHERS, read) for flag, name, read in _PROPERTIES if flags & flag)


def _start(properties: bytes, flags: int) -> int:
    """Where the properties begin, behind further words of flags, of which the protocol defines none."""
    at = 2
    while flags & 1:
        (flags,) = _FLAGS.unpack_from(properties, at)
        at += 2
    return at
