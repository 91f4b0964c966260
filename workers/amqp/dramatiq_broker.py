"""Dramatiq's use of the broker: one queue, one actor's message, and the middleware around it.

A dramatiq message here carries ids only and the lease is in Postgres, so losing, repeating or delaying one is harmless. That
is why dramatiq retries nothing: it acks a message whose retry could not be enqueued, and a second schedule beside that
of Postgres would multiply the attempts. Deliveries that an actor could not finish are claimed again when their lease ends.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final, cast
from uuid import UUID

import dramatiq
import pika
import structlog
from dramatiq.brokers.rabbitmq import DEAD_MESSAGE_TTL, RabbitmqBroker, _RabbitmqConsumer
from dramatiq.common import dq_name, q_name, xq_name
from dramatiq.errors import ConnectionClosed

from ops.settings import Settings
from ops.telemetry import metrics, table
from ops.telemetry.tracing.switch import active, within
from pipeline.formats import trace_context
from schemas.delivery import Claim
from schemas.trace import TraceContext
from workers.amqp.broker_pulse import Overlooked
from workers.amqp.brokers import Brokers
from workers.amqp.confirm_window import Outgoing
from workers.amqp.topology import TOPOLOGY, Declaration
from workers.net.answer_deadline import SECONDS, AnswerDeadline

QUEUE: Final = "waxseal.deliver"
MAIL_QUEUES: Final = ("waxseal.mail", "waxseal.mail.slow")  # pulls of mailboxes; pulls of failing or slow ones
ACTOR: Final = "deliver"
POOL: Final = "deliver"

_DEAD: Final = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": xq_name(QUEUE)}

#: The same declarations as dramatiq makes for a queue, because the relay may connect first. Were they to differ, the broker
#: would refuse whichever came second.
DELIVER_TOPOLOGY: Final[tuple[Declaration, ...]] = (
    *TOPOLOGY,
    ("queue_declare", {"queue": QUEUE, "durable": True, "arguments": _DEAD}),
    ("queue_declare", {"queue": dq_name(QUEUE), "durable": True, "arguments": _DEAD}),
    ("queue_declare", {"queue": xq_name(QUEUE), "durable": True, "arguments": {"x-message-ttl": DEAD_MESSAGE_TTL}}),
)

_log = structlog.get_logger()


class Observed(dramatiq.Middleware):
    """Counts the messages that actors process, and logs failures."""

    def __init__(self, pool: str = POOL) -> None:
        self._pool = pool
        self._began: dict[str, float] = {}  # by message id; one message is in one thread

    def after_declare_actor(self, broker: dramatiq.Broker, actor: dramatiq.Actor[..., Any]) -> None:  # noqa: ARG002 - the hook's form
        """Create the actor's time series at start."""
        metrics.declare_actor(actor.queue_name, actor.actor_name, self._pool)

    def before_process_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:  # noqa: ARG002
        """Note how long the message waited, and that it is being worked on."""
        self._began[message.message_id] = time.monotonic()
        waited = time.time() - message.message_timestamp / 1000
        table.ACTOR_WAIT_SECONDS.labels(self._pool).observe(waited)
        table.ACTOR_IN_PROGRESS.labels(self._pool).inc()

    def after_process_message(
        self,
        broker: dramatiq.Broker,  # noqa: ARG002
        message: dramatiq.MessageProxy,
        *,
        result: Any = None,  # noqa: ARG002
        exception: BaseException | None = None,
    ) -> None:
        """Count the message as done or failed. A failed one is acked all the same; its deliveries' lease recovers them."""
        began = self._began.pop(message.message_id, None)
        if began is not None:
            table.ACTOR_IN_PROGRESS.labels(self._pool).dec()
            table.ACTOR_SECONDS.labels(message.queue_name, message.actor_name).observe(time.monotonic() - began)
        outcome = "done" if exception is None else "failed"
        table.ACTOR_MESSAGES.labels(message.queue_name, message.actor_name, outcome).inc()
        if exception is not None:
            _log.error("actor_failed", actor=message.actor_name, error=repr(exception))


class Traced(dramatiq.Middleware):
    """Has an actor work in the span that the options of its message name."""

    def __init__(self, _pool: str = POOL) -> None:
        self._working: dict[str, AbstractContextManager[None]] = {}  # by message id; one message is in one thread

    def before_process_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:  # noqa: ARG002
        """Enter the span."""
        span = trace_context.parsed(message.options.get(trace_context.PARENT))
        if span is not None and active() is not None:
            working = self._working[message.message_id] = within(span)
            working.__enter__()

    def after_process_message(
        self,
        broker: dramatiq.Broker,  # noqa: ARG002
        message: dramatiq.MessageProxy,
        *,
        result: Any = None,  # noqa: ARG002
        exception: BaseException | None = None,  # noqa: ARG002
    ) -> None:
        """Leave it: the thread works on other messages after this."""
        working = self._working.pop(message.message_id, None)
        if working is not None:
            working.__exit__(None, None, None)


#: In order. No Retries (see above); no TimeLimit, because everything that an actor waits for has a deadline; no AgeLimit,
#: because the lease fences an old message.
MIDDLEWARE: Final[tuple[Callable[[str], dramatiq.Middleware], ...]] = (Traced, Observed)


class _Consumer(_RabbitmqConsumer):
    """Gives its connection up when the broker keeps up its heartbeats, and does not answer or gives no messages."""

    def __init__(self, broker: "ObservedBroker", queue_name: str, prefetch: int, timeout: int) -> None:
        super().__init__(broker, queue_name, prefetch, timeout)  # type: ignore[no-untyped-call]
        self._deadline = AnswerDeadline(self.connection, broker.answer_seconds)
        self._overlooked: Overlooked | None = None
        if queue_name == q_name(queue_name):  # nothing is ever in the other, of delayed messages
            self._overlooked = Overlooked(broker.amqp_url, queue_name, self.connection)

    def __next__(self) -> dramatiq.MessageProxy | None:
        """The next message, or None after a while without one. The first call waits for the broker to begin the consumption."""
        self._deadline.progress()
        try:
            message = cast("dramatiq.MessageProxy | None", super().__next__())  # type: ignore[no-untyped-call]
        except ConnectionClosed:
            self.broker.left(self.connection)
            raise
        if self._overlooked is not None and (message is not None or self.known_tags):
            self._overlooked.came()
        return message

    def close(self) -> None:
        """Close the connection."""
        if self._overlooked is not None:
            self._overlooked.close()
        super().close()  # type: ignore[no-untyped-call]


class ObservedBroker(RabbitmqBroker):
    """Counts the connections that its consumers make anew, and shows the messages that they hold."""

    def __init__(self, amqp_url: str, pool: str, answer_seconds: float = SECONDS) -> None:
        """`answer_seconds`: for which a consumer waits for an answer of its broker, before it goes to the next."""
        self.answer_seconds = answer_seconds
        self.amqp_url = amqp_url
        self._brokers, self._pool = Brokers(amqp_url), pool
        super().__init__(confirm_delivery=True, middleware=[each(pool) for each in MIDDLEWARE])
        self._consumed: set[str] = set()

    @property
    def parameters(self) -> list[pika.URLParameters]:
        """Of the brokers, to be tried in this order; dramatiq asks for each connection."""
        return [_tuned(each, self._pool) for each in self._brokers.all()]

    @parameters.setter
    def parameters(self, value: object) -> None:
        """Dramatiq's default, which is not for us."""

    def left(self, connection: pika.BlockingConnection) -> None:
        """Note that a consumer has given its connection up: its next one leads elsewhere, if there is another broker."""
        self._brokers.leave(connection._impl.params)  # noqa: SLF001 - pika does not say to which of several it connected

    @property
    def consumer_class(self) -> type[_Consumer]:
        """What dramatiq makes for each queue."""
        return _Consumer

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> dramatiq.Consumer:
        """Consume the queue. Dramatiq calls this again when the connection was lost."""
        consumer = super().consume(queue_name, prefetch, timeout)
        if queue_name in self._consumed:
            table.BROKER_RECONNECTS.labels("actors").inc()
        self._consumed.add(queue_name)
        table.QUEUE_MESSAGES.labels(queue_name, "unacked").set_function(partial(_held, consumer))
        return consumer


def _held(consumer: Any) -> int:
    """The messages that the broker has given to the consumer: those with actors, and those that still wait in pika."""
    return len(consumer.known_tags) + int(consumer.channel.get_waiting_message_count())


def make_broker(settings: Settings, pool: str = POOL) -> RabbitmqBroker:
    """A broker on which nothing is declared yet, for the actors of one pool. It connects when it is first used."""
    return ObservedBroker(settings.amqp_url, pool)


def hush_pika() -> None:
    """Keep pika from logging seven lines for each failure: dramatiq and the publisher log what happened."""
    logging.getLogger("pika").setLevel(logging.CRITICAL)


def envelope(lease: UUID, until: float, claims: Sequence[Claim], span: TraceContext | None = None) -> Outgoing:
    """The message that hands `claims`, made in `span`, to the actor. Their lease ends at `until`, in Unix seconds."""
    arguments = {
        "lease": lease.hex,
        "until": until,
        "deliveries": [(claim.endpoint_id, claim.id, claim.size) for claim in claims],
    }
    options = {} if span is None else {trace_context.PARENT: trace_context.traceparent(span)}
    message: dramatiq.Message[None] = dramatiq.Message(QUEUE, ACTOR, (), arguments, options)
    return Outgoing("", QUEUE, message.encode(), pika.BasicProperties(delivery_mode=2))


def _tuned(parameters: pika.URLParameters, pool: str) -> pika.URLParameters:
    parameters.heartbeat = parameters.heartbeat or 5  # as of the other connections
    parameters.blocked_connection_timeout = 30
    parameters.socket_timeout, parameters.stack_timeout = 5, 10
    parameters.client_properties = {"connection_name": f"waxseal {pool}"}
    return parameters
