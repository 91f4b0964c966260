"""A minimal upstream system for the demo: publishes events to `waxseal.in`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pika

from workers.amqp.brokers import Brokers
from workers.amqp.topology import IN

_DEADLINE: Final = 10.0  # seconds for each step of connecting, and for a confirm


@dataclass(frozen=True, slots=True)
class Published:
    """One message as an upstream system publishes it (CONTRACT §5)."""

    routing_key: str
    body: bytes
    properties: dict[str, Any] = field(default_factory=dict)


def publish(amqp_url: str, messages: Sequence[Published]) -> None:
    """Publish all; return when the broker has confirmed every message. Raises pika's `AMQPError` when it does not."""
    parameters = Brokers(amqp_url).next()
    parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = _DEADLINE
    connection = pika.BlockingConnection(parameters)
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        for message in messages:
            properties = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent, **message.properties)
            channel.basic_publish(IN, message.routing_key, message.body, properties, mandatory=True)
    finally:
        connection.close()
