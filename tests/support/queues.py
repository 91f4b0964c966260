"""What is in the broker's queues, and events that come to the inbox as upstream systems publish them."""

import pika
from pika.adapters.blocking_connection import BlockingChannel

from support.waiting import wait_for
from workers.amqp.topology import IN, INBOX, UNROUTED


def depth(channel: BlockingChannel, queue: str = INBOX) -> int:
    """How many messages are in the queue that no consumer holds. A quorum queue, as the inbox is, may tell it a little late."""
    return int(channel.queue_declare(queue, passive=True).method.message_count)


def consumers(channel: BlockingChannel) -> int:
    """How many workers consume the inbox."""
    return int(channel.queue_declare(INBOX, passive=True).method.consumer_count)


def emptied(channel: BlockingChannel) -> None:
    """Empties the inboxes when nobody consumes them: what a process that ends has held comes back to them."""
    wait_for(lambda: not consumers(channel))
    for queue in (INBOX, UNROUTED):
        channel.queue_purge(queue)
        wait_for(lambda queue=queue: depth(channel, queue) == 0)


def put(channel: BlockingChannel, key: str, id: str, body: bytes, exchange: str = IN) -> None:
    """Publishes a message as upstream systems do, with any routing key, or to any exchange."""
    properties = pika.BasicProperties(message_id=id, headers={"subject": "s"}, delivery_mode=2)
    channel.basic_publish(exchange, key, body, properties)


def publish(channel: BlockingChannel, *names: str) -> None:
    """Publishes events of these ids without `mandatory`, as upstream systems do."""
    for name in names:
        properties = pika.BasicProperties(message_id=name, type="t", headers={"subject": "s"}, delivery_mode=2)
        channel.basic_publish(IN, "acme.orders", b"{}", properties)
