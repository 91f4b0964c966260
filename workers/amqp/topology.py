"""What must exist on the broker, declared by whoever connects first; the names are CONTRACT §5's.

Two exchanges lead to the inbox because they mean different things. Upstream systems publish to `waxseal.in`. Only our own
receivers publish to `waxseal.received`, after they checked a signature, so the ingest worker believes what comes through it;
the broker's permissions can keep everybody else from writing there.

Both have a second way to the inbox, through the exchange `waxseal.inbox`, which has an alternate exchange: what finds no queue
there, because the inbox was deleted, is kept in `waxseal.unrouted`. RabbitMQ puts a message into each queue once, however many
ways lead to it. The alternate exchange is not an argument of the first two because a broker refuses to declare an exchange
again with other arguments, and those of older installations have none.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

IN: Final = "waxseal.in"
RECEIVED: Final = "waxseal.received"
EVENTS: Final = "waxseal.events"
INBOX: Final = "waxseal.ingest"

#: The name of an exchange and of its queue: what would have been in the inbox, had there been one.
UNROUTED: Final = "waxseal.unrouted"

#: The exchange before the inbox; nobody may publish to it.
BEFORE_INBOX: Final = "waxseal.inbox"

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


def _exchange(name: str, kind: str = "topic", **options: Any) -> Declaration:
    return "exchange_declare", {"exchange": name, "exchange_type": kind, "durable": True, **options}


def _queue(name: str) -> Declaration:
    return "queue_declare", {"queue": name, "durable": True, "arguments": dict(INBOX_ARGUMENTS)}


def _bound(queue: str, exchange: str) -> Declaration:
    return "queue_bind", {"queue": queue, "exchange": exchange, "routing_key": "#"}


def _leads_to_inbox(exchange: str) -> tuple[Declaration, ...]:
    by_way = {"destination": BEFORE_INBOX, "source": exchange, "routing_key": "#"}
    return _exchange(exchange), _bound(INBOX, exchange), ("exchange_bind", by_way)


PROBE_EXCHANGE: Final = _exchange(PROBE, "fanout")

#: Killed within half a second of making a quorum queue, RabbitMQ 3.10 comes back without it and without what it confirmed. So
#: what leads there, the exchanges and their bindings, is made when the queues are safe.
SETTLE_SECONDS: Final = 1.0

INBOX_QUEUE: Final = _queue(INBOX)

#: The quorum queues. They are declared first; then whoever made one waits.
QUEUES: Final[tuple[Declaration, ...]] = (INBOX_QUEUE, _queue(UNROUTED))

#: In order: the method of a channel, and its arguments.
TOPOLOGY: Final[tuple[Declaration, ...]] = (
    *QUEUES,
    _exchange(UNROUTED, "fanout", internal=True),
    _bound(UNROUTED, UNROUTED),
    _exchange(BEFORE_INBOX, "fanout", internal=True, arguments={"alternate-exchange": UNROUTED}),
    _bound(INBOX, BEFORE_INBOX),
    *_leads_to_inbox(IN),
    _exchange(EVENTS),
    PROBE_EXCHANGE,
    *_leads_to_inbox(RECEIVED),
)


def declare(channel: BlockingChannel, *, settle: bool = False) -> None:
    """Make everything exist, and wait for the queues to be safe where one is new, or with `settle`: others make them too.

    Raises pika's `ChannelClosedByBroker` when something is there in another form, or is not ours to make.
    """
    settle = settle or missing(channel.connection, QUEUES) is not None
    for declaration in TOPOLOGY:
        method, arguments = declaration
        getattr(channel, method)(**arguments)
        if settle and declaration is QUEUES[-1]:
            channel.connection.sleep(SETTLE_SECONDS)


def missing(connection: pika.BlockingConnection, topology: Sequence[Declaration] = TOPOLOGY) -> str | None:
    """The first exchange or queue that is not there. Raises pika's `ChannelClosedByBroker` when the broker does not say."""
    channel = connection.channel()  # of its own, because a "no" closes it
    for question, name in questions(topology):
        method, arguments = question
        try:
            getattr(channel, method)(**arguments)
        except ChannelClosedByBroker as error:
            if error.reply_code != NOT_FOUND:
                raise
            return name
    channel.close()
    return None


#: The reply code of AMQP 0-9-1.
NOT_FOUND: Final = 404


def questions(topology: Sequence[Declaration]) -> list[tuple[Declaration, str]]:
    """What asks for each exchange and queue whether it is there, and its name. A binding cannot be asked for."""
    asked: list[tuple[Declaration, str]] = []
    for method, arguments in topology:
        kind, _, verb = method.partition("_")
        if verb == "declare":
            name = arguments[kind]
            asked.append(((method, {kind: name, "passive": True}), f"the {kind} {name}"))
    return asked
