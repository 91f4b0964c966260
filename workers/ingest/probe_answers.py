"""Answers the messages that ask how long messages wait in the inbox (`workers.amqp.inbox_probe`)."""

from contextlib import suppress

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPChannelError

from schemas.message import PROBE_KEY, Message
from workers.amqp.inbox_probe import ANSWERS, answer_to


class ProbeAnswers:
    """The answers that are to be sent, on a channel of their own: a broker that refuses one closes the channel."""

    def __init__(self, connection: pika.BlockingConnection) -> None:
        self._connection = connection
        self._channel: BlockingChannel | None = None
        self._answers: list[bytes] = []

    def arrived(self, message: Message) -> None:
        """Note that a probe has arrived."""
        if message.published_at is not None:
            self._answers.append(answer_to(message.published_at))

    def send(self) -> None:
        """Send the answers. One may be lost: then the inbox is probed again. Raises pika's `AMQPError`."""
        if not self._answers:
            return
        if self._channel is None or not self._channel.is_open:
            self._channel = self._connection.channel()
        while self._answers:
            with suppress(AMQPChannelError):
                self._channel.basic_publish("", ANSWERS, self._answers.pop())


def is_probe(message: Message) -> bool:
    """Whether it is one of our own probes."""
    return message.routing_key == PROBE_KEY and message.trusted
