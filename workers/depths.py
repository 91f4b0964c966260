"""How much waits in the queues, for `waxseal status`."""

from typing import Final

import pika
from dramatiq.common import dq_name, xq_name
from pika.exceptions import ChannelClosedByBroker

from workers.broker import QUEUE
from workers.topology import INBOX

QUEUES: Final = (INBOX, QUEUE, dq_name(QUEUE), xq_name(QUEUE))
_DEADLINE: Final = 5.0  # seconds for each step of connecting, and for an answer


def depths(amqp_url: str) -> dict[str, int | None]:
    """The messages that wait in each queue, without those that a consumer holds; None for one that does not exist yet.

    Asks only, and makes nothing. Raises pika's `AMQPError` when the broker does not answer.
    """
    parameters = pika.URLParameters(amqp_url)
    parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = _DEADLINE
    connection = pika.BlockingConnection(parameters)
    try:
        return {queue: _depth(connection, queue) for queue in QUEUES}
    finally:
        connection.close()


def _depth(connection: pika.BlockingConnection, queue: str) -> int | None:
    channel = connection.channel()
    try:
        waiting: int = channel.queue_declare(queue, passive=True).method.message_count
    except ChannelClosedByBroker:
        return None
    channel.close()
    return waiting
