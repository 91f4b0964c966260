"""The state of the work in a deliver process: its batches, each of their deliveries, and the threads that wait for them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from pipeline.store.deliveries.deliveries import Held
from schemas.trace import TraceContext
from workers.delivery.lanes import Leave
from workers.net.lease_deadline import LeaseEnd, LeaseEnded

MARGIN: Final = 5.0  # seconds at the end of a lease that are kept for settling, or a tenth of the lease if that is less


@dataclass(frozen=True, slots=True)
class LeasedBatch:
    """The contents of one message: deliveries under one lease."""

    lease: UUID
    ends: LeaseEnd
    deliveries: Sequence[tuple[int, int, int]]  # (endpoint id, delivery id, bytes of its body)
    whole: float  # seconds of the lease that were left when it was taken
    claim: TraceContext | None = None  # the span in which a relay claimed it, if that is recorded

    @property
    def margin(self) -> float:
        """Seconds at the lease's end that are kept for settling."""
        return min(MARGIN, self.whole / 10)


@dataclass(slots=True, eq=False)
class DeliveryInHand:
    """A delivery in this process: its progress, and the call that waits for it."""

    held: Held
    endpoint_id: int
    size: int
    batch: LeasedBatch
    ends: LeaseEnd
    awaited: "Awaited | None"
    task: "asyncio.Task[None] | None" = None
    lane: Leave | None = None  # gives up its place, if it has one
    begun: bool = False
    sending: bool = False
    settling: bool = False

    def check(self) -> None:
        """Raise `LeaseEnded` if the lease is over, as after a stall of this process: another may have the delivery by now."""
        if self.ends.is_past:
            raise LeaseEnded


class Awaited:
    """The deliveries of a batch that the caller waits for."""

    __slots__ = ("_done", "_loop", "hands")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._done: asyncio.Future[None] = loop.create_future()
        self.hands: set[DeliveryInHand] = set()

    async def wait(self, seconds: float) -> set[int]:
        """Wait for all, `seconds` at most; give the endpoints of the unfinished ones."""
        if self.hands:
            timer = self._loop.call_later(seconds, self._end)
            try:
                await self._done
            finally:
                timer.cancel()
        return {hand.endpoint_id for hand in self.hands}

    def done(self, hand: DeliveryInHand) -> None:
        """Note that a delivery is settled, or no longer ours."""
        self.hands.discard(hand)
        if not self.hands:
            self._end()

    def _end(self) -> None:
        if not self._done.done():
            self._done.set_result(None)
