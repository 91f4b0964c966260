"""What must exist on the broker, declared by whoever connects first; the names are CONTRACT §5's.

Two exchanges lead to the inbox because they mean different things. Upstream systems publish to `waxseal.in`. Only our own
receivers publish to `waxseal.received`, after they checked a signature, so the ingest worker believes what comes through it;
the broker's permissions can keep everybody else from writing there.
"""

from collections.abc import Mapping
from typing import Any, Final

from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

IN: Final = "waxseal.in"
RECEIVED: Final = "waxseal.received"
EVENTS: Final = "waxseal.events"
INBOX: Final = "waxseal.ingest"

#: Bound to nothing: what is published there is confirmed and gone. Shows whether the broker takes messages just now.
PROBE: Final = "waxseal.probe"

#: The broker must never drop what it confirmed. A quorum queue drops a message that was redelivered too often, from 4.0 on
#: after 20 times, which a crashing worker reaches in a minute; -1 would switch that off, but 3.x refuses it. And should a
#: policy ever limit the queue's length, publishers are to be refused rather than the oldest messages dropped.
INBOX_ARGUMENTS: Final[Mapping[str, Any]] = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 1_000_000_000,
    "x-overflow": "reject-publish",
}

Declaration = tuple[str, Mapping[str, Any]]


def _exchange(name: str, kind: str = "topic") -> Declaration:
    return "exchange_declare", {"exchange": name, "exchange_type": kind, "durable": True}


def _everything_of(exchange: str) -> Declaration:
    return "queue_bind", {"queue": INBOX, "exchange": exchange, "routing_key": "#"}


PROBE_EXCHANGE: Final = _exchange(PROBE, "fanout")

INBOX_QUEUE: Final[Declaration] = (
    "queue_declare",
    {"queue": INBOX, "durable": True, "arguments": dict(INBOX_ARGUMENTS)},
)

#: Killed within half a second of making a quorum queue, RabbitMQ 3.10 comes back without it and without what it confirmed. So
#: what leads there, the exchanges and their bindings, is made when the queue is safe.
SETTLE_SECONDS: Final = 1.0

#: In order: the method of a channel, and its arguments.
TOPOLOGY: Final[tuple[Declaration, ...]] = (
    INBOX_QUEUE,
    _exchange(IN),
    _everything_of(IN),
    _exchange(EVENTS),
    PROBE_EXCHANGE,
    _exchange(RECEIVED),
    _everything_of(RECEIVED),
)


def declare(channel: BlockingChannel) -> None:
    """Make everything exist. Raises pika's `ChannelClosedByBroker` when something is there in another form."""
    fresh = not _exists(channel, RECEIVED)
    for declaration in TOPOLOGY:
        method, arguments = declaration
        getattr(channel, method)(**arguments)
        if fresh and declaration is INBOX_QUEUE:
            channel.connection.sleep(SETTLE_SECONDS)


def _exists(channel: BlockingChannel, exchange: str) -> bool:
    asking = channel.connection.channel()  # of its own, because a "no" closes it
    try:
        asking.exchange_declare(exchange, passive=True)
    except ChannelClosedByBroker as error:
        if error.reply_code != 404:
            raise
        return False
    asking.close()
    return True
