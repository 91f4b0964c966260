"""Keeps reading to a share of the time, so that readers who ask without a pause do not slow what records and delivers."""

import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from anyio import CapacityLimiter, Event, sleep, to_thread

BURST: Final = 0.5  # seconds of answering at once, after a rest
_LEAST: Final = 0.001  # seconds of one wait

_Result = TypeVar("_Result")


class _Turns:
    """One has its turn at a time; the persons who wait have theirs one after the other, however often each of them asks."""

    def __init__(self) -> None:
        self.taken = False
        self._waiting: dict[str, deque[Event]] = {}  # who waits, the next one first

    @asynccontextmanager
    async def take(self, who: str) -> AsyncIterator[None]:
        """Wait for the turn of this person, and have it during the block."""
        await self._taken(who)
        try:
            yield
        finally:
            self._give()

    async def _taken(self, who: str) -> None:
        if not self.taken:
            self.taken = True
            return
        turn = Event()
        self._waiting.setdefault(who, deque()).append(turn)
        try:
            await turn.wait()
        except BaseException:  # it does not want its turn any more
            if turn.is_set():
                self._give()
            else:
                self._forget(who, turn)
            raise

    def _give(self) -> None:
        self.taken = bool(self._waiting)
        if self._waiting:
            who = next(iter(self._waiting))
            turns = self._waiting.pop(who)
            turns.popleft().set()
            if turns:
                self._waiting[who] = turns

    def _forget(self, who: str, turn: Event) -> None:
        turns = self._waiting[who]
        turns.remove(turn)
        if not turns:
            del self._waiting[who]


class Pace:
    """Bounds the seconds that answering takes in one second, on average, of all requests together.

    A request that comes when the share is used up waits, one at a time: each person's in the order of their coming, and the
    persons in turn, so that who asks without a pause delays the others by one answer. How long an answer takes is its time in
    the thread, with that of its statements, so that all of them take less of a machine that is busy.
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
        self._turns = _Turns()

    async def run(self, who: str, work: Callable[[], _Result], threads: CapacityLimiter) -> _Result:
        """Do the work of this person in a thread, when it is its turn; give its result."""
        if not self._share:
            return await to_thread.run_sync(work, limiter=threads)
        if self._left() > 0 and not self._turns.taken:
            return await self._counted(work, threads)
        async with self._turns.take(who):
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
