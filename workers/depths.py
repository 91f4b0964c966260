"""How much waits in the queues, for `waxseal status` and for the collector."""

from typing import Final

import pika
from dramatiq.common import dq_name, xq_name
from pika.exceptions import ChannelClosedByBroker

from workers.broker import MAIL_QUEUES, QUEUE
from workers.topology import INBOX

QUEUES: Final = (INBOX, QUEUE, dq_name(QUEUE), xq_name(QUEUE), *MAIL_QUEUES)
_DEADLINE: Final = 5.0  # seconds for each step of connecting, and for an answer


def depths(amqp_url: str) -> dict[str, int | None]:
    """The messages that wait in each queue, without those that a consumer holds; otherwise as `queues`."""
    return {queue: state and state[0] for queue, state in queues(amqp_url).items()}


def queues(amqp_url: str) -> dict[str, tuple[int, int] | None]:
    """The messages that wait in each queue, and its consumers; None for one that does not exist yet.

    Asks only, and makes nothing. Raises pika's `AMQPError` when the broker does not answer.
    """
    parameters = pika.URLParameters(amqp_url)
    parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = _DEADLINE
    connection = pika.BlockingConnection(parameters)
    try:
        return {queue: _state(connection, queue) for queue in QUEUES}
    finally:
        connection.close()


def _state(connection: pika.BlockingConnection, queue: str) -> tuple[int, int] | None:
    channel = connection.channel()
    try:
        answer = channel.queue_declare(queue, passive=True).method
    except ChannelClosedByBroker:
        return None
    channel.close()
    return answer.message_count, answer.consumer_count
