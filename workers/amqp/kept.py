"""Messages that go on unchanged: replayed ones to the inbox, and those of a tenant that moves to the queue that keeps them.

A kept message lies in its tenant's queue in the order in which it came, with the exchange and the routing key by which the
other cell's inbox is to get it. Its lanes name its subjects: only messages that share one have to stay in their order.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from typing import Any, Final, TypeVar

from pika import BasicProperties, DeliveryMode

from pipeline.formats.trace_context import PARENT, traceparent
from schemas.message import FIRST_USER, OTHERS, PUBLISHED_AT, Message
from schemas.trace import TraceContext
from workers.amqp.confirm_window import Outgoing
from workers.amqp.topology import IN, INBOX_ARGUMENTS, RECEIVED, Declaration

#: Properties of the received message that must not be published again. A broker refuses a user name other than ours and
#: drops expired messages; and the delivery mode must be persistent, whatever it was.
_ONCE: Final = frozenset({"user_id", "expiration", "delivery_mode"})

#: Headers that a quorum queue adds on redelivery; the sender did not set them.
_BROKERS_OWN: Final = frozenset({"x-delivery-count", "x-acquired-count"})

#: Headers that are not published again: those, and when it was first published, which says nothing about its wait now.
_LEFT_OUT: Final = _BROKERS_OWN | {PUBLISHED_AT}

_EXCHANGE: Final = "waxseal-kept-exchange"
_KEY: Final = "waxseal-kept-key"
_LANES: Final = "waxseal-kept-lanes"

_Each = TypeVar("_Each")


def outgoing(message: Message, hop: TraceContext | None = None) -> Outgoing:
    """The message to publish to the inbox, through its original exchange: persistent, without user name or expiration.

    A message that had a user name goes through the exchange that only our processes publish to, with the name in a header.
    `hop` is the span of the replay. The trace context that an upstream system gave is part of the event, and stays.
    """
    headers = {name: value for name, value in (message.headers or {}).items() if name not in _LEFT_OUT}
    user = None if message.trusted else message.others.get("user_id")
    if user is not None:
        headers[FIRST_USER] = user
    if hop is not None and message.trusted:
        headers[PARENT] = traceparent(hop)
    others = {name: value for name, value in message.others.items() if name not in _ONCE}
    properties = BasicProperties(
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        headers=headers,
        message_id=message.message_id,
        type=message.type,
        timestamp=message.timestamp,
        delivery_mode=DeliveryMode.Persistent.value,
        **others,
    )
    return Outgoing(RECEIVED if message.trusted or user is not None else IN, message.routing_key, message.body, properties)


def kept_queue(tenant: str) -> str:
    """The queue that keeps what comes for a tenant that moves, or has moved."""
    return f"waxseal.moving.{tenant}"


def keeping(tenant: str) -> Declaration:
    """The declaration of that queue: as safe as the inbox; and of two forwarders one waits, so that the order stays."""
    arguments = {**INBOX_ARGUMENTS, "x-single-active-consumer": True}
    return "queue_declare", {"queue": kept_queue(tenant), "durable": True, "arguments": arguments}


def kept(message: Message, lanes: Iterable[bytes]) -> Outgoing:
    """The message to publish to its tenant's queue. `lanes` are the keys of its events' chains; none if they are not known."""
    asked = outgoing(message)
    way = {_EXCHANGE: asked.exchange, _KEY: asked.routing_key, _LANES: ",".join(sorted(lane.hex() for lane in lanes))}
    asked.properties.headers = {**asked.properties.headers, **way}
    return asked._replace(exchange="", routing_key=kept_queue(message.tenant))


def forwarded(body: bytes, properties: BasicProperties) -> tuple[Outgoing, Set[str]]:
    """The message to publish to the other cell's inbox, from one in the tenant's queue; and its lanes."""
    headers: dict[str, Any] = {name: value for name, value in (properties.headers or {}).items() if name not in _BROKERS_OWN}
    exchange, key, lanes = (headers.pop(name, "") for name in (_EXCHANGE, _KEY, _LANES))
    properties.headers = headers
    return Outgoing(exchange, key, body, properties), frozenset(filter(None, lanes.split(",")))


def received(message: Outgoing) -> Message:
    """The message as the inbox of this cell would have given it, from `forwarded`."""
    properties, trusted = message.properties, message.exchange == RECEIVED
    headers = dict(properties.headers or {})
    user = headers.pop(FIRST_USER, None) if trusted else None
    others = {name: value for name in OTHERS if (value := getattr(properties, name)) is not None}
    return Message(
        routing_key=message.routing_key,
        body=message.body,
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        headers=headers,
        message_id=properties.message_id,
        type=properties.type,
        timestamp=properties.timestamp,
        trusted=trusted and user is None,
        others=others if user is None else {**others, "user_id": user},
    )


def waves(messages: Sequence[_Each], lanes_of: Callable[[_Each], Set[Any]]) -> Iterator[list[_Each]]:
    """The messages in their order, in pieces in which no two share a lane: a piece may be published in any order.

    One whose lanes are not known is a piece of its own.
    """
    wave: list[_Each] = []
    taken: set[Any] = set()
    for message in messages:
        lanes = lanes_of(message)
        if wave and (not lanes or taken & lanes):
            yield wave
            wave, taken = [], set()
        wave.append(message)
        taken |= lanes
        if not lanes:
            yield wave
            wave = []
    if wave:
        yield wave
