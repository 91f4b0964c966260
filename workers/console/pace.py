"""Keeps reading to a share of the time, so that readers who ask without a pause do not slow what records and delivers."""

import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from anyio import CapacityLimiter, Lock, sleep, to_thread

BURST: Final = 0.5  # seconds of answering at once, after a rest
_LEAST: Final = 0.001  # seconds of one wait

_Result = TypeVar("_Result")


class Pace:
    """Bounds the seconds that answering takes in one second, on average, of all requests together.

    A request that comes when the share is used up waits: in the order of their coming, one at a time. How long an answer takes
    is its time in the thread, with that of its statements, so that all of them take less of a machine that is busy.
    """

    def __init__(
        self,
        share: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[object]] = sleep,
    ) -> None:
        """`share`: seconds in one second; 0 is no bound."""
        self._share = share
        self._clock = clock
        self._pause = pause
        self._credit = BURST
        self._at = clock()
        self._lock = Lock()  # of the one request that is next

    async def run(self, work: Callable[[], _Result], threads: CapacityLimiter) -> _Result:
        """Do the work in a thread, when it is its turn; give its result."""
        if not self._share:
            return await to_thread.run_sync(work, limiter=threads)
        if self._left() > 0 and not self._lock.locked():
            return await self._counted(work, threads)
        async with self._lock:
            while (left := self._left()) <= 0:
                await self._pause(max(_LEAST, -left / self._share))
            return await self._counted(work, threads)

    async def _counted(self, work: Callable[[], _Result], threads: CapacityLimiter) -> _Result:
        took = 0.0

        def timed() -> _Result:
            nonlocal took
            began = self._clock()
            try:
                return work()
            finally:
                took = self._clock() - began

        try:
            return await to_thread.run_sync(timed, limiter=threads)
        finally:
            self._credit = self._left() - took

    def _left(self) -> float:
        """The seconds that may be used at once; below zero they are owed."""
        now = self._clock()
        self._credit, self._at = min(BURST, self._credit + (now - self._at) * self._share), now
        return self._credit
