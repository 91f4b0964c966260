"""Forwards what is kept for a tenant that has moved to the inbox of its new cell, in order."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import pika
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError

from ops.admin.moving.cells import Route
from ops.admin.moving.copying import copy_blobs
from ops.errors import OpsError
from schemas.blob import CLAIM, read_claim
from workers.amqp import header_tables
from workers.amqp.brokers import Brokers
from workers.amqp.kept import forwarded, keeping, kept_queue, waves
from workers.amqp.publisher_thread import PublisherThread
from workers.amqp.topology import RECEIVED, SETTLE_SECONDS, missing

AT_ONCE: Final = 500  # messages in hand
PATIENCE: Final = 10.0  # seconds to connect, and then for the confirms of one wave
Held = tuple[Any, BasicProperties, bytes]
"""A message as the broker gave it: how, with which properties, and its body."""

_QUIET: Final = 0.2  # seconds without a message, twice, after which the queue is asked whether it is empty


def make_queue(amqp_url: str, tenant: str) -> None:
    """Declare the tenant's queue, and return when it is safe: one that was just made could be lost with its messages."""
    with connected(amqp_url) as channel:
        if missing(channel.connection, [keeping(tenant)]) is not None:
            _declare(channel, tenant)
            channel.connection.sleep(SETTLE_SECONDS)


def waiting(amqp_url: str, tenant: str) -> int:
    """How many messages are kept for the tenant."""
    with connected(amqp_url) as channel:
        return _declare(channel, tenant)


def forward(route: Route, goes_on: Callable[[], bool] | None = None) -> int:
    """Forward what is kept now, or everything until `goes_on` says no; gives how many messages.

    Each is acknowledged when the other cell's broker has it durably. A forwarder that is killed repeats what it had not
    acknowledged; the other cell drops the duplicates. Raises `OpsError` when one of the brokers is away.
    """
    header_tables.install()
    publisher = PublisherThread(route.target.settings.amqp_url, "forward")
    try:
        _wait_for(publisher, route.target.name)
        with connected(route.source.settings.amqp_url) as channel:
            least = _declare(channel, route.tenant)
            ends = caught_up(least) if goes_on is None else lambda _done, _empty: not goes_on()
            return pass_on(channel, route.tenant, partial(_publish, route, publisher), ends)
    finally:
        publisher.close()


def pass_on(
    channel: BlockingChannel, tenant: str, take: Callable[[Sequence[Held]], None], ends: Callable[[int, bool], bool]
) -> int:
    """Have `take` take what the tenant's queue holds, in order; gives how many messages. Each is acknowledged when it returns.

    `ends` is given how many were taken and whether the queue is empty; it says whether that is the end.
    """
    held: deque[Held] = deque()
    channel.basic_qos(prefetch_count=AT_ONCE)
    tag = channel.basic_consume(kept_queue(tenant), lambda _channel, *message: held.append(message))
    done, quiet = 0, 0
    while not ends(done, quiet > 1 and _declare(channel, tenant) == 0):
        channel.connection.process_data_events(time_limit=_QUIET)
        quiet = 0 if held else quiet + 1
        done += _taken(channel, held, take)
    channel.basic_cancel(tag)  # what came before the broker's answer is not given back, which could change its order
    return done + _taken(channel, held, take)


def when_empty(_done: int, empty: bool) -> bool:
    """The end when the queue is empty: for a queue to which nobody publishes."""
    return empty


def caught_up(least: int) -> Callable[[int, bool], bool]:
    """The end when as many were taken as there were, or none is left."""
    return lambda done, empty: empty or 0 < done >= least


def _taken(channel: BlockingChannel, held: deque[Held], take: Callable[[Sequence[Held]], None]) -> int:
    count = len(held)
    if held:
        take(held)
        channel.basic_ack(held[-1][0].delivery_tag, multiple=True)
        held.clear()
    return count


def _publish(route: Route, publisher: PublisherThread, held: Sequence[Held]) -> None:
    """Publish these, those of one subject in their order; every one until it is confirmed."""
    asked = [forwarded(body, properties) for _method, properties, body in held]
    copy_blobs(route, [reference for message, _lanes in asked for reference in _claimed(message)])
    for wave in waves(asked, lambda each: each[1]):
        left = [message for message, _lanes in wave]
        deadline = time.monotonic() + PATIENCE
        while left:
            confirmed = publisher.publish_all(left, PATIENCE)
            left = [message for message, sure in zip(left, confirmed, strict=True) if not sure]
            if left and time.monotonic() > deadline:
                raise OpsError(f"the broker of {route.target.name} does not confirm: run this again")


def _claimed(message: Any) -> Iterator[str]:
    headers = message.properties.headers or {}
    blob = read_claim(headers[CLAIM]) if CLAIM in headers and message.exchange == RECEIVED else None
    if blob is not None:
        yield blob.reference


def _declare(channel: BlockingChannel, tenant: str) -> int:
    _, arguments = keeping(tenant)
    return int(channel.queue_declare(**arguments).method.message_count)


def _wait_for(publisher: PublisherThread, name: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while (reason := publisher.ready()) is not None:
        if time.monotonic() > deadline:
            raise OpsError(f"the broker of {name} does not take messages ({reason}): start it and run this again")
        time.sleep(0.05)


@contextmanager
def connected(amqp_url: str) -> Iterator[BlockingChannel]:
    """A channel to the broker, until the block ends. Raises `OpsError` when the broker is away, or goes."""
    try:
        parameters = Brokers(amqp_url).next()
        parameters.blocked_connection_timeout = None
        connection = pika.BlockingConnection(parameters)
        try:
            yield connection.channel()
        finally:
            if connection.is_open:
                connection.close()
    except (AMQPError, AMQPConnectorException) as error:
        raise OpsError(f"the broker does not answer: {type(error).__name__} {error}; run this again") from error
