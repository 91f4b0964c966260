"""What an ingest process holds: the messages that the broker has given to it and that are not acked, and their age.

Read whenever the metrics are read, by another thread, so that it costs nothing for each message.
"""

import time
from collections import deque
from typing import Final, NamedTuple

from ops.telemetry import table
from schemas.message import Message
from workers.amqp.topology import INBOX
from workers.ingest.judged import Judged

FAR_TIMES: Final = 2  # what is set, at most: its heads are locked for as long as a batch takes
FAR_WORK: Final = 0.1  # seconds that a batch of the set size takes, without its round trips


class Batch(NamedTuple):
    """A batch that the writer has: its last delivery tag, its bytes, and since when its first message has waited."""

    tag: int
    size: int
    since: float


class Held:
    """The messages of the current connection: those that wait in the `buffer`, and the batches that the writer has."""

    def __init__(self) -> None:
        self.buffer: deque[tuple[int, Judged]] = deque()  # (delivery tag, message)
        self.in_hand: deque[Batch] = deque()
        self.acked = 0  # the last delivery tag that was acked
        self._acked_before = 0

    def show(self) -> None:
        """Show it from now on."""
        table.QUEUE_MESSAGES.labels(INBOX, "unacked").set_function(self.unacked)
        table.QUEUE_OLDEST_SECONDS.labels(INBOX).set_function(self.oldest)
        table.OLDEST_SECONDS.labels("inbox").set_function(self.oldest)

    def unacked(self) -> int:
        """The number of messages that are not acked: the broker numbers them."""
        try:
            last = self.buffer[-1][0] if self.buffer else self.in_hand[-1].tag if self.in_hand else self.acked
        except IndexError:  # the process has just taken the last one
            return 0
        return max(0, last - self.acked)

    def quiet(self) -> bool:
        """Whether nothing is held, and nothing was acked since the last call."""
        before, self._acked_before = self._acked_before, self.acked
        return before == self.acked and not self.buffer and not self.in_hand

    def oldest(self) -> float:
        """The seconds since the oldest was published, or came here if nobody said when it was; 0 when there is none."""
        try:
            since = self.in_hand[0].since if self.in_hand else waits_since(self.buffer[0][1].message) if self.buffer else None
        except IndexError:
            return 0.0
        return 0.0 if since is None else max(0.0, time.time() - since)


def waits_since(message: Message) -> float:
    """When the message was published, in Unix seconds; now, if nobody said when."""
    return message.published_at or time.time()


def far_batch(size: int, seconds: float) -> int:
    """The most messages of a batch if Postgres is that many seconds away, where it is `size` nearby.

    A batch takes three round trips: they are to take no longer than the rest of its work.
    """
    return max(size, min(FAR_TIMES * size, int(size * 3 * seconds / FAR_WORK)))
