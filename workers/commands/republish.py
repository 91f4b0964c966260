"""Publishes dead letters again to the inbox, as they were received."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from pika import BasicProperties, DeliveryMode

from ops.admin.replay import Publish
from ops.errors import OpsError
from ops.runtime import log as logs
from ops.settings import Settings, require
from ops.telemetry.tracing import switch as tracing
from ops.telemetry.tracing.publishing_spans import replayed, replaying
from ops.telemetry.tracing.switch import active
from pipeline.formats.trace_context import PARENT, traceparent
from schemas.message import FIRST_USER, PUBLISHED_AT, Message
from schemas.trace import TraceContext
from workers.amqp import header_tables
from workers.amqp.confirm_window import Outgoing
from workers.amqp.publisher_thread import PublisherThread
from workers.amqp.topology import IN, RECEIVED

PATIENCE: Final = 10.0  # seconds to connect to the broker, and then for its confirms

#: Properties of the received message that must not be published again. A broker refuses a user name other than ours and
#: drops expired messages; and the delivery mode must be persistent, whatever it was.
_ONCE: Final = frozenset({"user_id", "expiration", "delivery_mode"})

#: Headers that a quorum queue adds on redelivery; the sender did not set them.
_BROKERS_OWN: Final = frozenset({"x-delivery-count", "x-acquired-count"})

#: Headers that are not published again: those, and when it was first published, which says nothing about its wait now.
_LEFT_OUT: Final = _BROKERS_OWN | {PUBLISHED_AT}


@contextmanager
def inbox(settings: Settings, *, in_process: bool = False) -> Iterator[Publish]:
    """Give a function that publishes and waits for the confirms; it connects when it is first called.

    The function raises `OpsError` when the broker is away for ten seconds. `in_process`: logs and traces are those of the
    process that it runs in, not of a command.
    """
    with ExitStack() as stack:
        opened: list[PublisherThread] = []

        def publish(messages: Sequence[Message]) -> list[bool]:
            if not opened:
                opened.append(_open(settings, in_process=in_process))
                if not in_process:
                    stack.callback(tracing.stop)
                stack.callback(opened[0].close)
            _wait_for(opened[0])
            spans = active()
            hops = [None if spans is None else replaying(spans, message) for message in messages]
            asked = [outgoing(*each) for each in zip(messages, hops, strict=True)]
            began = time.monotonic()
            done = opened[0].publish_all(asked, PATIENCE)
            for message, hop, confirmed in zip(messages, hops, done, strict=True):
                if spans is not None and hop is not None:
                    replayed(spans, message, hop, time.monotonic() - began, None if confirmed else "unconfirmed")
            return done

        yield publish


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


def _open(settings: Settings, *, in_process: bool) -> PublisherThread:
    require(settings, "amqp_url")
    if not in_process:
        logs.configure(settings.log, "error", "replay")  # the operator need not see the connection's steps
        tracing.start("replay")
    header_tables.install()
    return PublisherThread(settings.amqp_url, "replay")


def _wait_for(publisher: PublisherThread) -> None:
    deadline = time.monotonic() + PATIENCE
    while (reason := publisher.ready()) is not None:
        if time.monotonic() > deadline:
            raise OpsError(f"the broker does not take messages ({reason}): start it and run this again")
        time.sleep(0.05)
