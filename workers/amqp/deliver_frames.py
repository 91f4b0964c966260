"""Decodes delivered messages, three frames each (AMQP 0-9-1 §4.2.6), from the wire; pika reads all other frames.

pika makes four objects of each message and copies its buffer for each frame, which was a third of the CPU of an event. So, on
one channel, the frames that follow a Basic.Deliver are taken out of the byte stream before pika sees them.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from struct import Struct
from typing import Any, Final

from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import InvalidFrameError

from schemas.message import OTHERS, Message
from workers.amqp.header_tables import decode_short_string, decode_table
from workers.amqp.topology import RECEIVED

Read = Callable[[bytes, int], tuple[Any, int]]  # (encoded bytes, start offset) -> (value, end offset)
Receive = Callable[[int, bool, Message], None]  # delivery tag, whether it was redelivered, and the message

LARGEST: Final = 128 * 1024  # bytes of a frame, unless the broker has another limit: its default and pika's
READ: Final = 64 * 1024  # bytes read at once; pika's 4 KiB hold only four messages

_HEAD: Final = Struct(">BHI")  # of a frame: type, channel, size
_SIZE: Final = Struct(">Q")  # of a body, in the content header after class and weight
_TAG: Final = Struct(">Q")
_FLAGS: Final = Struct(">H")
_METHOD, _HEADER, _BODY, _END = 1, 2, 3, 0xCE
_OVERHEAD: Final = _HEAD.size + 1  # bytes of a frame besides its payload
_DELIVER: Final = b"\x00\x3c\x00\x3c"  # class basic, method deliver
_MOST_ROUTES: Final = 10_000  # decoded pairs of exchange and routing key that are cached

#: The properties in the order of their flags, from the highest bit down, and their decoders (AMQP 0-9-1, class basic).
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
    """Pass the messages on `channel` to `receivers`, by consumer tag, instead of to the consumers' callbacks.

    Receivers run inside `process_data_events`, which returns after any of them ran. They must not use the connection: pika's
    calls read from it, in the midst of what is being read. Call this before the first consumer exists.
    """
    connection = channel.connection
    inner = connection._impl  # noqa: SLF001 - pika must not see these bytes; tests compare the decoding with pika's own
    stream = Deliveries(channel.channel_number, receivers, inner._on_data_available, inner.params.frame_max)  # noqa: SLF001
    pending = connection._channels_pending_dispatch  # noqa: SLF001

    def available(data: bytes) -> None:
        inner.bytes_received += len(data)  # pika's heartbeat check reads this
        if stream.feed(data):
            pending.add(-1)  # not the number of any channel: makes process_data_events return

    inner._on_data_available = available  # noqa: SLF001
    inner._transport._MAX_RECV_BYTES = READ  # noqa: SLF001


class Deliveries:
    """Takes the deliveries on one channel out of a byte stream; passes all other frames, whole, to `others`."""

    def __init__(
        self, channel: int, receivers: Mapping[bytes, Receive], others: Callable[[bytes], None], largest: int = LARGEST
    ) -> None:
        """`largest`: the bytes of a frame at most, as agreed with the broker."""
        self._channel = channel
        self._largest = largest
        self._reading = False
        self._receivers = receivers
        self._others = others
        self._partial = b""  # the beginning of a frame that has not arrived completely
        self._method: tuple[Receive, int, bool, str, str] | None = None  # of the message whose frames are arriving
        self._properties = b""
        self._missing = 0  # bytes of its body that have not arrived
        self._pieces: list[bytes] = []
        self._routes: dict[bytes, tuple[str, str]] = {}

    def feed(self, data: bytes) -> bool:
        """Read the next bytes of the stream; give whether a message was completed.

        Raises `InvalidFrameError` for what can be no frame, and `RuntimeError` when a receiver calls it. Nothing can be read
        after that.
        """
        if self._reading:
            raise RuntimeError("a receiver read from its connection: the bytes would come out of order")
        self._reading = True
        received = self._read(data)
        self._reading = False
        return received

    def _read(self, data: bytes) -> bool:
        if self._partial:
            data = self._partial + data
        at, end, received = 0, len(data), False
        while end - at >= _OVERHEAD:
            kind, channel, size = _HEAD.unpack_from(data, at)
            start, stop = at + 7, at + 8 + size
            if stop > end:
                if stop - at > self._largest:
                    raise InvalidFrameError(f"a frame of {stop - at} bytes, {self._largest} at most")
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
        self._partial = data[at:]
        return received

    def _begin(self, data: bytes, at: int, end: int) -> bool:
        """Read a Basic.Deliver method; give whether its consumer has a receiver here."""
        after = at + 1 + data[at]
        receive = self._receivers.get(data[at + 1 : after])
        if receive is None:
            return False
        (tag,) = _TAG.unpack_from(data, after)
        route = data[after + 9 : end]
        names = self._routes.get(route) or self._route(route)
        self._method = (receive, tag, bool(data[after + 8] & 1), *names)
        return True

    def _route(self, encoded: bytes) -> tuple[str, str]:
        exchange, at = decode_short_string(encoded, 0)
        routing_key, _ = decode_short_string(encoded, at)
        if len(self._routes) >= _MOST_ROUTES:
            self._routes.clear()
        self._routes[encoded] = exchange, routing_key
        return exchange, routing_key

    def _content(self, kind: int, data: bytes, start: int, end: int) -> bool:
        """Read a header or body frame of the message; give whether it was the last."""
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
    """The message, with the encoded `properties` of its content header."""
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
    """The offset of the first property: after further words of flags, none of which the protocol defines."""
    at = 2
    while flags & 1:
        (flags,) = _FLAGS.unpack_from(properties, at)
        at += 2
    return at
