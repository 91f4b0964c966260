"""Room for so much at once; who comes later waits, in order."""

import asyncio
from collections import deque
from typing import Final

_PACE: Final = 0.01  # seconds between two looks at least: deadlines that are close together are seen in one

_Turn = asyncio.Future[bool]


class WeightedSemaphore:
    """Lets in up to a limit of weight, first come, first served. On one event loop.

    One timer serves all that wait, because a timer for each would cost more than the waiting.
    """

    def __init__(self) -> None:
        self._inside = 0
        self._waiting: deque[tuple[_Turn, int, float]] = deque()  # with the weight and the deadline of each
        self._limit = 0
        self._timer: asyncio.TimerHandle | None = None

    def try_enter(self, weight: int, limit: int) -> bool:
        """As `enter`, for who does not wait: cheaper, where there mostly is room."""
        self._limit = limit
        if self._waiting or not self._fits(weight):
            return False
        self._inside += weight
        return True

    async def enter(self, weight: int, limit: int, deadline: float) -> bool:
        """Wait for room until the loop's clock shows `deadline`; say whether there was. Who is let in must `leave`.

        Something heavier than the `limit` is let in alone. A changed limit counts from now on.
        """
        if self.try_enter(weight, limit):
            return True
        loop = asyncio.get_running_loop()
        turn: _Turn = loop.create_future()
        self._waiting.append((turn, weight, deadline))
        if self._timer is None or deadline < self._timer.when():
            self._wake_at(loop, deadline)
        try:
            return await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                if turn.result():
                    self.leave(weight)  # let in at the very moment of giving up
            else:
                turn.cancel()
                self.leave(0)  # whoever stood behind a heavy one may fit
            raise

    def leave(self, weight: int) -> None:
        """Make room for the next."""
        self._inside -= weight
        while self._waiting and (self._waiting[0][0].done() or self._fits(self._waiting[0][1])):
            turn, next_weight, _deadline = self._waiting.popleft()
            if not turn.done():
                self._inside += next_weight
                turn.set_result(True)

    def _fits(self, weight: int) -> bool:
        return self._inside == 0 or self._inside + weight <= self._limit

    def _wake_at(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(deadline, self._expire, loop)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        """Turn away those whose deadline has come."""
        self._timer, now = None, loop.time()
        waiting = [place for place in self._waiting if not place[0].done()]
        self._waiting.clear()
        for turn, weight, deadline in waiting:
            if deadline <= now:
                turn.set_result(False)
            else:
                self._waiting.append((turn, weight, deadline))
        if self._waiting:
            self._wake_at(loop, max(min(deadline for _turn, _weight, deadline in self._waiting), now + _PACE))
        self.leave(0)
