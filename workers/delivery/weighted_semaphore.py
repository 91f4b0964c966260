"""A semaphore that counts weights, such as bytes, and admits waiters in order."""

import asyncio
from collections import deque
from typing import Final

_PACE: Final = 0.01  # least seconds between two checks, so that one check covers deadlines close together

_Waiter = asyncio.Future[bool]


class WeightedSemaphore:
    """Admits callers up to a limit of total weight, first come, first served. On one event loop.

    One timer serves all waiters, because a timer for each would cost more than the rest of the wait.
    """

    def __init__(self) -> None:
        self._inside = 0
        self._waiting: deque[tuple[_Waiter, int, float]] = deque()  # with the weight and the deadline of each
        self._limit = 0
        self._timer: asyncio.Handle | None = None
        self._wakes_at = 0.0  # the time of the timer, which does not tell it on every loop: uvloop's has none if it is over

    def try_enter(self, weight: int, limit: int) -> bool:
        """As `enter`, without waiting: cheaper where capacity is mostly free."""
        self._limit = limit
        if self._waiting or not self._fits(weight):
            return False
        self._inside += weight
        return True

    async def enter(self, weight: int, limit: int, deadline: float) -> bool:
        """Wait for capacity until the loop's clock shows `deadline`; give whether admitted. Once admitted, `leave`.

        A weight above the `limit` is admitted alone. A changed limit applies from now on.
        """
        if self.try_enter(weight, limit):
            return True
        loop = asyncio.get_running_loop()
        waiter: _Waiter = loop.create_future()
        self._waiting.append((waiter, weight, deadline))
        if self._timer is None or deadline < self._wakes_at:
            self._wake_at(loop, deadline)
        try:
            return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                if waiter.result():
                    self.leave(weight)  # admitted and cancelled in the same loop iteration
            else:
                waiter.cancel()
                self.leave(0)  # the waiter behind a heavy one may fit
            raise

    def leave(self, weight: int) -> None:
        """Release `weight`, and admit the next waiters that fit."""
        self._inside -= weight
        while self._waiting and (self._waiting[0][0].done() or self._fits(self._waiting[0][1])):
            waiter, next_weight, _deadline = self._waiting.popleft()
            if not waiter.done():
                self._inside += next_weight
                waiter.set_result(True)

    def _fits(self, weight: int) -> bool:
        return self._inside == 0 or self._inside + weight <= self._limit

    def _wake_at(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._wakes_at = loop.call_at(deadline, self._expire, loop), deadline

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        """Refuse the waiters whose deadline has passed."""
        self._timer, now = None, loop.time()
        waiting = [place for place in self._waiting if not place[0].done()]
        self._waiting.clear()
        for waiter, weight, deadline in waiting:
            if deadline <= now:
                waiter.set_result(False)
            else:
                self._waiting.append((waiter, weight, deadline))
        if self._waiting:
            self._wake_at(loop, max(min(deadline for _waiter, _weight, deadline in self._waiting), now + _PACE))
        self.leave(0)
