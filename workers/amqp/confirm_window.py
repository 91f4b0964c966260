"""The messages in a publisher's hands: those that wait for room, and those that wait for the broker's confirm."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pika import BasicProperties

from workers.net.lease_deadline import Check, unleased

#: Told what became of a message: None when the broker has it durably, else why that is not known. Called once; may not raise.
Settle = Callable[[str | None], None]

RETURNED = "the broker has no queue for it"
REFUSED = "the broker refused it"


class Outgoing(NamedTuple):
    """A message to publish; with `mandatory`, one that reaches no queue does not count as published."""

    exchange: str
    routing_key: str
    body: bytes
    properties: BasicProperties
    mandatory: bool = True


class Slot:
    """One message's place. `settle` is called once: by a confirm, a loss, or the deadline, whatever is first."""

    __slots__ = ("_settle", "check", "deadline", "message")

    def __init__(self, message: Outgoing, deadline: float, settle: Settle, check: Check = unleased) -> None:
        self.message = message
        self.deadline = deadline
        self.check = check
        self._settle: Settle | None = settle

    def settle(self, fault: str | None) -> None:
        """Tell whoever waits, unless they were told before."""
        if self._settle is not None:
            settle, self._settle = self._settle, None
            settle(fault)


class Window:
    """At most `count` messages with `size` bytes of bodies wait for a confirm, and `backlog` messages for room.

    A message keeps its place until the broker speaks, also when its deadline has passed: it still fills the socket.
    """

    def __init__(self, count: int, size: int, backlog: int) -> None:
        self._count, self._size, self._backlog = count, size, backlog
        self._sent: dict[int, Slot] = {}  # by delivery tag, ascending
        self._waiting: deque[Slot] = deque()
        self._bytes = 0
        self._next = self._lowest = 1  # the next tag, and one that none below is still in `_sent`
        self._returned: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def idle(self) -> bool:
        """Whether nothing waits for anything."""
        return not self._sent and not self._waiting

    def takes(self, slot: Slot) -> bool:
        """Whether there is room for `slot` now, and nothing that came before waits for it."""
        if self._waiting or len(self._sent) >= self._count:
            return False
        return not self._sent or self._bytes + len(slot.message.body) <= self._size

    def enter(self, slot: Slot) -> bool:
        """Let `slot` wait for room; False when too many wait already."""
        if len(self._waiting) >= self._backlog:
            return False
        self._waiting.append(slot)
        return True

    def admitted(self) -> Iterator[Slot]:
        """Take those that there is room for, in the order they came. Each is either `sent` before the next, or settled."""
        while self._waiting and len(self._sent) < self._count:
            size = len(self._waiting[0].message.body)
            if self._sent and self._bytes + size > self._size:
                return
            yield self._waiting.popleft()

    def sent(self, slot: Slot) -> None:
        """Count the next delivery tag as this message's."""
        self._sent[self._next] = slot
        self._next += 1
        self._bytes += len(slot.message.body)

    def confirm(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """Settle message `tag`, or all up to it."""
        if multiple:
            for each in range(self._lowest, tag + 1):
                self._settle(each, taken=taken)
            self._lowest = max(self._lowest, tag + 1)
        else:
            self._settle(tag, taken=taken)
        if not self._sent:
            self._returned.clear()
            self._lowest = self._next

    def returned(self, exchange: str, routing_key: str) -> None:
        """Remember what could not be routed.

        The broker does not name the message, so all that were sent there until now fail when they are confirmed. A few may
        have arrived, when the queue came or went in between; none is taken for durable that is not.
        """
        self._returned[exchange, routing_key] = self._next - 1

    def fail(self, fault: str) -> None:
        """Settle everything with `fault`, and count delivery tags from 1 again."""
        slots = [*self._sent.values(), *self._waiting]
        self._sent.clear()
        self._waiting.clear()
        self._returned.clear()
        self._bytes = 0
        self._next = self._lowest = 1
        for slot in slots:
            slot.settle(fault)

    def expire(self, now: float, fault: str) -> None:
        """Settle with `fault` what has passed its deadline."""
        for slot in self._sent.values():
            if slot.deadline <= now:
                slot.settle(fault)
        for slot in [slot for slot in self._waiting if slot.deadline <= now]:
            self._waiting.remove(slot)
            slot.settle(fault)

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
