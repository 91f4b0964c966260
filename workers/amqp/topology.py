"""The exchanges, queues and bindings on the broker. The first process to connect declares them; CONTRACT §5 fixes the names.

Two exchanges lead to the inbox because they mean different things. Upstream systems publish to `waxseal.in`. Only our own
receivers publish to `waxseal.received`, after they verified a signature, so the ingest worker trusts messages that come
through it; the broker's permissions can keep all others from writing there.

Both have a second route to the inbox, through the exchange `waxseal.inbox`, which has an alternate exchange: messages that find
no queue there, because the inbox was deleted, are kept in `waxseal.unrouted`. RabbitMQ puts a message into each queue once,
however many bindings lead to it. The alternate exchange is not an argument of the first two because a broker refuses to declare
an exchange again with other arguments, and those of older installations have none.
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

#: The name of an exchange and of its queue, which keeps messages that arrived while the inbox did not exist.
UNROUTED: Final = "waxseal.unrouted"

#: The exchange in front of the inbox. It is internal: clients cannot publish to it.
BEFORE_INBOX: Final = "waxseal.inbox"

#: Bound to no queue: the broker confirms messages there and drops them. Shows whether it accepts messages at the moment.
PROBE: Final = "waxseal.probe"

#: The broker must never drop a message that it confirmed. A quorum queue drops one that was redelivered too often, from 4.0 on
#: after 20 times, which a crashing worker reaches in a minute; -1 would switch that off, but 3.x refuses it. And if a policy
#: ever limits the queue's length, the broker must refuse new messages rather than drop the oldest.
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

#: If RabbitMQ 3.10 is killed within half a second of creating a quorum queue, it restarts without the queue and without the
#: messages confirmed in it. So the exchanges and bindings that lead there are declared when the queues are safe.
SETTLE_SECONDS: Final = 1.0

INBOX_QUEUE: Final = _queue(INBOX)

#: The quorum queues. They are declared first; a process that created one then waits `SETTLE_SECONDS`.
QUEUES: Final[tuple[Declaration, ...]] = (INBOX_QUEUE, _queue(UNROUTED))

#: The declarations in order, each a method of a channel and its arguments.
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
    """Declare the topology. If a queue is new, or with `settle`, wait until the queues are safe: another process may make them.

    Raises pika's `ChannelClosedByBroker` when something exists with other arguments, or permissions do not suffice.
    """
    settle = settle or missing(channel.connection, QUEUES) is not None
    for declaration in TOPOLOGY:
        method, arguments = declaration
        getattr(channel, method)(**arguments)
        if settle and declaration is QUEUES[-1]:
            channel.connection.sleep(SETTLE_SECONDS)


def missing(connection: pika.BlockingConnection, topology: Sequence[Declaration] = TOPOLOGY) -> str | None:
    """The first exchange or queue that does not exist. Raises pika's `ChannelClosedByBroker` if it may not ask."""
    channel = connection.channel()  # a separate one, because the broker closes it when something is missing
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


#: A reply code of AMQP 0-9-1.
NOT_FOUND: Final = 404


def questions(topology: Sequence[Declaration]) -> list[tuple[Declaration, str]]:
    """The passive declaration of each exchange and queue, and its name. AMQP cannot ask for a binding."""
    asked: list[tuple[Declaration, str]] = []
    for method, arguments in topology:
        kind, _, verb = method.partition("_")
        if verb == "declare":
            name = arguments[kind]
            asked.append(((method, {kind: name, "passive": True}), f"the {kind} {name}"))
    return asked
