"""Answers the messages that ask how long messages wait in the inbox (`workers.amqp.inbox_probe`)."""

from contextlib import suppress

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPChannelError

from schemas.message import PROBE_KEY, Message
from workers.amqp.inbox_probe import ANSWERS, answer_to


class ProbeAnswers:
    """The answers that are to be sent, on a channel of their own: a broker that refuses one closes the channel."""

    def __init__(self, connection: pika.BlockingConnection, inbox: BlockingChannel) -> None:
        """`inbox`: the channel on which the probes come."""
        self._connection = connection
        self._inbox = inbox
        self._channel: BlockingChannel | None = None
        self._answers: list[bytes] = []
        self._arrived: list[int] = []

    def arrived(self, tag: int, message: Message) -> None:
        """Note that a probe has arrived, with that delivery tag. Does not use the connection, from which it is being read."""
        self._arrived.append(tag)
        if message.published_at is not None:
            self._answers.append(answer_to(message.published_at))

    def ack(self) -> int:
        """Ack the probes that arrived; give the last one's tag, 0 if none did. Raises pika's `AMQPError`."""
        last = 0
        while self._arrived:
            last = self._arrived.pop(0)
            self._inbox.basic_ack(last)
        return last

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
