"""Spans in the protobuf form of OTLP (opentelemetry/proto/trace/v1/trace.proto), written directly.

OpenTelemetry's own encoder takes 40 µs for a span, and ingest 45 µs for an event; this one takes a tenth. A test compares them.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from struct import Struct
from typing import Final

from schemas.trace import TraceContext

Value = str | int | float | bool

KINDS: Final[Mapping[str, bytes]] = {
    kind: bytes((6 << 3, number)) for number, kind in enumerate(("internal", "server", "client", "producer", "consumer"), 1)
}

#: Attributes of most spans that have few values. None is a number: to the cache 1, 1.0 and True are the same.
_REPEATED: Final = frozenset(
    {
        "cloudevents.event_source",
        "messaging.destination.name",
        "messaging.operation.name",
        "messaging.operation.type",
        "messaging.rabbitmq.destination.routing_key",
        "messaging.system",
        "waxseal.endpoint",
        "waxseal.outcome",
        "waxseal.tenant",
        "waxseal.transport",
    }
)

_LENGTH: Final = 2  # the wire type of text, bytes and messages
_times = Struct("<BQBQ").pack
_double = Struct("<d").pack
_START, _END = 7 << 3 | 1, 8 << 3 | 1

_FAILED: Final = bytes((15 << 3 | _LENGTH, 2, 3 << 3, 2))  # a status whose code is ERROR
_FINE: Final = bytes((15 << 3 | _LENGTH, 0))
_ROOT: Final = b"\x85\x01\x00\x01\x00\x00"  # flags: the parent is known not to be remote
_REMOTE: Final = b"\x85\x01\x00\x03\x00\x00"  # flags: the parent is known to be remote
_LINK_REMOTE: Final = b"\x35\x00\x03\x00\x00"


def encoded_span(
    name: str,
    context: TraceContext,
    parent_id: str,
    times: tuple[int, int],
    attributes: Mapping[str, Value],
    kind: str,
    links: Sequence[TraceContext],
    *,
    failed: bool,
) -> bytes:
    """A span, as a member of its scope's spans."""
    ids = b"\x0a\x10" + bytes.fromhex(context.trace_id) + b"\x12\x08" + bytes.fromhex(context.span_id)
    pieces = [
        ids,
        _text(3, context.state) if context.state else b"",
        b"\x22\x08" + bytes.fromhex(parent_id) if parent_id else b"",
        _name(name),
        KINDS[kind],
        _times(_START, times[0], _END, times[1]),
    ]
    pieces += [(_repeated if key in _REPEATED else _attribute)(key, value) for key, value in attributes.items()]
    pieces += [_link(each) for each in links]
    pieces += (_FAILED if failed else _FINE, _REMOTE if parent_id else _ROOT)
    return message(2, b"".join(pieces))


def message(field: int, content: bytes) -> bytes:
    """A field, below 16, that holds a message."""
    return bytes((field << 3 | _LENGTH,)) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return message(field, text.encode("utf-8", "replace"))


@lru_cache(1000)
def _name(name: str) -> bytes:
    return _text(5, name)


@lru_cache(1000)
def _key(key: str) -> bytes:
    return _text(1, key)


def _attribute(key: str, value: Value) -> bytes:
    return message(9, _key(key) + message(2, _value(value)))


_repeated = lru_cache(1000)(_attribute)


def _value(value: Value) -> bytes:
    if isinstance(value, str):
        return _text(1, value)
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)  # two's complement
    return b"\x21" + _double(value)


def _link(context: TraceContext) -> bytes:
    ids = b"\x0a\x10" + bytes.fromhex(context.trace_id) + b"\x12\x08" + bytes.fromhex(context.span_id)
    return message(13, ids + _LINK_REMOTE)


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    pieces = bytearray()
    while number > 0x7F:
        pieces.append(number & 0x7F | 0x80)
        number >>= 7
    pieces.append(number)
    return bytes(pieces)
