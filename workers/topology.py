"""What must exist on the broker, declared by whoever connects first; the names are CONTRACT §5's.

Two exchanges lead to the inbox because they mean different things. Upstream systems publish to `waxseal.in`. Only our own
receivers publish to `waxseal.received`, after they checked a signature, so the ingest worker believes what comes through it;
the broker's permissions can keep everybody else from writing there.
"""

from collections.abc import Mapping
from typing import Any, Final

from pika.adapters.blocking_connection import BlockingChannel

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

#: In order: the method of a channel, and its arguments.
TOPOLOGY: Final[tuple[Declaration, ...]] = (
    _exchange(IN),
    _exchange(RECEIVED),
    _exchange(EVENTS),
    PROBE_EXCHANGE,
    ("queue_declare", {"queue": INBOX, "durable": True, "arguments": dict(INBOX_ARGUMENTS)}),
    _everything_of(IN),
    _everything_of(RECEIVED),
)


def declare(channel: BlockingChannel) -> None:
    """Make everything exist. Raises pika's `ChannelClosedByBroker` when something is there in another form."""
    for method, arguments in TOPOLOGY:
        getattr(channel, method)(**arguments)
