"""Room for so much at once; who comes later waits, in order."""

import asyncio
from collections import deque


class WeightedSemaphore:
    """Lets in up to a limit of weight, first come, first served. On one event loop."""

    def __init__(self) -> None:
        self._inside = 0
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()
        self._limit = 0

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
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, weight))
        try:
            async with asyncio.timeout_at(deadline):
                await turn
        except BaseException as error:
            self._give_up(turn, weight)
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def leave(self, weight: int) -> None:
        """Make room for the next."""
        self._inside -= weight
        while self._waiting and (self._waiting[0][0].done() or self._fits(self._waiting[0][1])):
            turn, next_weight = self._waiting.popleft()
            if not turn.done():
                self._inside += next_weight
                turn.set_result(None)

    def _fits(self, weight: int) -> bool:
        return self._inside == 0 or self._inside + weight <= self._limit

    def _give_up(self, turn: asyncio.Future[None], weight: int) -> None:
        if turn.done() and not turn.cancelled():
            self.leave(weight)  # let in at the very moment of giving up
        else:
            turn.cancel()
            self.leave(0)  # whoever stood behind a heavy one may fit
