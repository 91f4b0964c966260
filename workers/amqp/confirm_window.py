"""The messages a publisher holds: queued ones, and published ones that await the broker's confirm."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from pika import BasicProperties

from workers.net.lease_deadline import Check, unleased

#: Called once with the result of a message: None when the broker has it durably, else why that is not known. Must not raise.
Settle = Callable[[str | None], None]

RETURNED = "the broker has no queue for it"
REFUSED = "the broker refused it"


class Outgoing(NamedTuple):
    """A message to publish; with `mandatory`, a message that reaches no queue does not count as published."""

    exchange: str
    routing_key: str
    body: bytes
    properties: BasicProperties
    mandatory: bool = True


class Slot:
    """One message in the window. A confirm, a lost connection or the deadline settles it, whichever comes first."""

    __slots__ = ("_settle", "check", "deadline", "message")

    def __init__(self, message: Outgoing, deadline: float, settle: Settle, check: Check = unleased) -> None:
        self.message = message
        self.deadline = deadline
        self.check = check
        self._settle: Settle | None = settle

    def settle(self, fault: str | None) -> None:
        """Call the caller's `settle` with the result; later calls do nothing."""
        if self._settle is not None:
            settle, self._settle = self._settle, None
            settle(fault)


class Window:
    """At most `count` messages with `size` bytes of bodies await a confirm, and at most `backlog` messages are queued.

    A message past its deadline keeps its slot until the broker confirms it: it still takes up the socket's buffer.
    """

    def __init__(self, count: int, size: int, backlog: int) -> None:
        self._count, self._size, self._backlog = count, size, backlog
        self._sent: dict[int, Slot] = {}  # by delivery tag, ascending
        self._waiting: deque[Slot] = deque()
        self._bytes = 0
        self._next = self._lowest = 1  # the next delivery tag; a tag below which none is left in `_sent`
        self._returned: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def idle(self) -> bool:
        """Whether no message is queued or awaits a confirm."""
        return not self._sent and not self._waiting

    def takes(self, slot: Slot) -> bool:
        """Whether `slot` may be sent now: the window has capacity, and no earlier message is queued."""
        if self._waiting or len(self._sent) >= self._count:
            return False
        return not self._sent or self._bytes + len(slot.message.body) <= self._size

    def enter(self, slot: Slot) -> bool:
        """Queue `slot`; False when the backlog is full."""
        if len(self._waiting) >= self._backlog:
            return False
        self._waiting.append(slot)
        return True

    def admitted(self) -> Iterator[Slot]:
        """Dequeue the slots that the window has capacity for, oldest first. Call `sent` or settle each before the next."""
        while self._waiting and len(self._sent) < self._count:
            size = len(self._waiting[0].message.body)
            if self._sent and self._bytes + size > self._size:
                return
            yield self._waiting.popleft()

    def sent(self, slot: Slot) -> None:
        """Assign the next delivery tag to this message."""
        self._sent[self._next] = slot
        self._next += 1
        self._bytes += len(slot.message.body)

    def confirm(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """Settle message `tag`; with `multiple`, all up to it."""
        if multiple:
            for each in self._up_to(tag):
                self._settle(each, taken=taken)
            self._lowest = max(self._lowest, tag + 1)
        else:
            self._settle(tag, taken=taken)
        if not self._sent:
            self._returned.clear()
            self._lowest = self._next

    def returned(self, exchange: str, routing_key: str) -> None:
        """Remember an exchange and routing key that led to no queue.

        The broker does not name the message, so all that were sent there until now fail when they are confirmed. A few may
        have arrived, if the queue came or went in between; but no lost message is reported as durable.
        """
        self._returned[exchange, routing_key] = self._next - 1
        if len(self._returned) > 2 * self._count:  # rarely, so that a return costs the same however many are in flight
            self._forget_settled()

    def fail(self, fault: str) -> None:
        """Settle every message with `fault`, and restart delivery tags at 1."""
        waiting = list(self._waiting)
        self._waiting.clear()
        self.restart(fault)
        for slot in waiting:
            slot.settle(fault)

    def restart(self, fault: str) -> None:
        """Settle every message in flight with `fault`, and restart delivery tags at 1. Queued messages stay queued."""
        sent = list(self._sent.values())
        self._sent.clear()
        self._returned.clear()
        self._bytes = 0
        self._next = self._lowest = 1
        for slot in sent:
            slot.settle(fault)

    def expire(self, now: float, fault: str) -> None:
        """Settle with `fault` every message whose deadline has passed."""
        for slot in self._sent.values():
            if slot.deadline <= now:
                slot.settle(fault)
        for slot in [slot for slot in self._waiting if slot.deadline <= now]:
            self._waiting.remove(slot)
            slot.settle(fault)

    def _up_to(self, tag: int) -> Iterable[int]:
        """The tags up to `tag` that may be in flight; at most as many as the window holds.

        Single confirms leave gaps, and one message that stays unconfirmed lets the gap behind it grow without bound.
        """
        tags = range(self._lowest, tag + 1)
        return tags if len(tags) <= self._count else [each for each in self._sent if each <= tag]

    def _forget_settled(self) -> None:
        """Forget the returns that concern no message in flight: later messages have higher tags, and are not concerned."""
        sent = {(slot.message.exchange, slot.message.routing_key) for slot in self._sent.values()}
        self._returned = {place: tag for place, tag in self._returned.items() if place in sent}

    def _settle(self, tag: int, *, taken: bool) -> None:
        slot = self._sent.pop(tag, None)
        if slot is None:
            return
        message = slot.message
        self._bytes -= len(message.body)
        if not taken:
            slot.settle(REFUSED)
        elif self._returned and self._returned.get((message.exchange, message.routing_key), 0) >= tag and message.mandatory:
            slot.settle(RETURNED)
        else:
            slot.settle(None)
