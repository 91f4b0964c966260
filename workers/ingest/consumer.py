"""The ingest worker's consumer, which also keeps its queues declared."""

import time
from typing import Any, Final

import pika
import structlog
from pika.exceptions import AMQPHeartbeatTimeout, ChannelClosedByBroker, ConnectionClosedByBroker

from ops.telemetry import table
from schemas.message import Message
from workers.amqp.broker_pulse import ConsumerOverlooked, Overlooked
from workers.amqp.deliver_frames import Receive, take_over
from workers.amqp.topology import INBOX, UNROUTED, declare, missing

LOOK_SECONDS: Final = 5.0  # between two checks that the topology exists
#: Seconds after which what the consumers on a silent node had is given out again at the latest: with `net_ticktime` = 6 the
#: others count it as down after 7.5. If it led the inbox, they elect another leader, which tries for 7 more to reach it
#: (Erlang's `net_setuptime`).
RETURNED: Final = 18.0
#: For how many of them the node has been silent at least when our connection to it ends so. It ends in another way if the node
#: dies, and then the others know at once.
SILENT: Final = {ConnectionClosedByBroker: 4.5, ConsumerOverlooked: 6.0, AMQPHeartbeatTimeout: 10.0}

_log = structlog.get_logger()


class InboxConsumer:
    """Consumes the inbox, and `waxseal.unrouted`, on one channel of a connection that was just opened.

    Messages in `waxseal.unrouted` are older than those in an inbox that was declared again, so the inbox is consumed only when
    the former is empty. Both consumers stay: a later message from `waxseal.unrouted` shows that the inbox or a binding is gone.
    When a queue is deleted the broker cancels its consumer, and the channel stays open: the messages it delivered are in the
    worker's buffer, in order, and no longer anywhere else.
    """

    def __init__(
        self, connection: pika.BlockingConnection, prefetch: int, receive: Receive, amqp_url: str, withheld_until: float
    ) -> None:
        """Declare the topology. Raises pika's `AMQPError`.

        `withheld_until`: monotonic time until which the inbox may withhold what the last connection had, and give out later
        messages before. It is not consumed meanwhile, unless it has messages and no consumer.
        """
        self._connection = connection
        self._receive = receive
        self.channel = connection.channel()
        declare(self.channel)
        self.channel.basic_qos(prefetch_count=prefetch)
        self.channel.add_on_cancel_callback(self._cancelled)
        self._receivers: dict[bytes, Receive] = {}  # by consumer tag
        take_over(self.channel, self._receivers)
        self._consumed: dict[str, str] = {}  # queues, by consumer tag
        self._tags = 0
        self._withheld_until = withheld_until
        self._trouble: str | None = None
        self._deleted = False
        self._unrouted_came = False
        self._look_at = time.monotonic() + LOOK_SECONDS
        self._overlooked = Overlooked(amqp_url, INBOX, connection)

    def came(self) -> None:
        """Note that a message came: to work on those that come together may take longer than a turn."""
        self._overlooked.came()

    def close(self) -> None:
        """Stop watching. The connection is the caller's."""
        self._overlooked.close()

    def start(self) -> None:
        """Begin to consume: `receive` is called with messages whenever the connection processes its events."""
        self._consume(UNROUTED)
        self._open_inbox()

    def turn(self, *, quiet: bool) -> str | None:
        """Check periodically, declare again what is missing, and give the trouble, if any. Raises pika's `AMQPError`.

        `quiet`: nothing is in hand, and nothing was acked since the last call.
        """
        if not quiet or INBOX not in self._consumed.values():  # nothing can come from a queue that is not consumed
            self.came()
        if self._deleted:  # report it first: declaring the queue again takes a second
            self._deleted, self._look_at = False, 0.0
            return self._trouble
        if time.monotonic() >= self._look_at:
            self._look()
        if UNROUTED not in self._consumed.values():
            self._consume(UNROUTED)
        if INBOX not in self._consumed.values():
            self._open_inbox()
        return self._trouble

    def _open_inbox(self) -> None:
        waiting = self.channel.queue_declare(UNROUTED, passive=True).method.message_count
        if not waiting and not self._withholds():
            self._consume(INBOX)
            _log.info("inbox_opened", queue=INBOX)

    def _withholds(self) -> bool:
        if time.monotonic() >= self._withheld_until:
            return False
        inbox = self.channel.queue_declare(INBOX, passive=True).method
        # A queue without a leader is said to be empty, and to have no consumer.
        return not (inbox.message_count > 0 and inbox.consumer_count == 0)

    def _consume(self, queue: str) -> None:
        self._tags += 1
        tag = f"{queue}-{self._tags}"
        self._receivers[tag.encode()] = self._receive if queue == INBOX else self._receive_unrouted
        self._consumed[self.channel.basic_consume(queue, _never_called, consumer_tag=tag)] = queue

    def _receive_unrouted(self, tag: int, redelivered: bool, message: Message) -> None:
        table.UNROUTED_MESSAGES.inc()
        if not self._unrouted_came and INBOX in self._consumed.values():  # may be old; else a binding is missing
            self._unrouted_came, self._look_at = True, 0.0
        self._receive(tag, redelivered, message)

    def _cancelled(self, frame: Any) -> None:
        queue = self._consumed.pop(frame.method.consumer_tag, "")
        self._receivers.pop(frame.method.consumer_tag.encode(), None)
        _log.warning("queue_deleted", queue=queue)
        self._deleted, self._trouble = True, f"the queue {queue} was deleted"

    def _look(self) -> None:
        try:
            gone = missing(self._connection)
            if gone is not None or self._unrouted_came:
                _log.warning("topology_declared_again", missing=gone, came_unrouted=self._unrouted_came)
                aside = self._connection.channel()
                declare(aside, settle=gone is not None)
                aside.close()
            self._trouble = None
        except ChannelClosedByBroker as refused:  # existing queues can still be consumed
            self._trouble = f"what is missing on the broker cannot be declared: {refused.reply_text}"
            _log.warning("topology_refused", error=refused.reply_text)
        self._unrouted_came = False
        self._look_at = time.monotonic() + LOOK_SECONDS


def withheld_until(lost: Exception) -> float:
    """Until when, monotonic, the inbox may withhold what a connection had that has just ended so."""
    return time.monotonic() + RETURNED - SILENT.get(type(lost), RETURNED)


def _never_called(*_: Any) -> None:
    """The callback that pika requires of a consumer; `take_over` passes messages to the receivers instead."""
