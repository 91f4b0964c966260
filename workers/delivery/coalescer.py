"""Batches requests from the event loop: a thread does the work for all requests that arrived since its last batch at once.

Under load that makes one transaction out of hundreds; without load a request is not delayed, and under load not for long. If
Postgres is far, several batches are under way at once, or its answers to one would be waited for before the next.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Final, Generic, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Request = tuple[_Item, asyncio.Future[_Result]]

MOST: Final = 500  # items in a batch, so that the first does not wait for too many others
AT_ONCE: Final = 4  # batches, if Postgres is far
FAR: Final = 0.003  # seconds of a round trip for each batch beyond the first


class Coalescer(Generic[_Item, _Result]):
    """Takes requests on the event loop and works in its own thread, from construction to `close`.

    `work` gives one result for each item, in their order; an exception of it is raised to all callers of the batch. Several
    threads call it if a round trip of the work is long: requests that were made in order may then be done in another.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Sequence[_Item]], Sequence[_Result]],
        apart: float = 0.0,
        round_trip: Callable[[], float] = float,
    ) -> None:
        """`apart`: seconds between the starts of two batches, for which a request may be delayed to join others."""
        self._apart = apart
        self._round_trip = round_trip
        self._others = ThreadPoolExecutor(AT_ONCE, name)
        self._free = threading.Condition()
        self._under_way = 0  # batches in the threads of `_others`
        self._loop = asyncio.get_running_loop()
        self._work = work
        self._new: list[_Request[_Item, _Result]] = []
        self._requests: SimpleQueue[list[_Request[_Item, _Result]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def ask(self, item: _Item) -> asyncio.Future[_Result]:
        """Request the work on `item`; the future gets the result."""
        if not self._new:
            self._loop.call_soon(self._hand_over)
        answer: asyncio.Future[_Result] = self._loop.create_future()
        self._new.append((item, answer))
        return answer

    async def close(self) -> None:
        """Return when all requests made before are done and the thread has ended."""
        self._hand_over()
        self._requests.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    def _hand_over(self) -> None:
        """Once for all requests of one loop iteration: else the thread would wake for the first and miss the rest."""
        if self._new:
            self._requests.put(self._new)
            self._new = []

    def _serve(self) -> None:
        last, begins = False, 0.0
        while not last:
            taken, last = self._taken(begins)
            seconds = self._round_trip()
            at_once = min(AT_ONCE, 1 + int(seconds / FAR))
            begins = time.monotonic() + (self._apart if at_once == 1 else max(self._apart, seconds / at_once))
            for start in range(0, len(taken), MOST):
                self._begin(taken[start : start + MOST], at_once)
        self._others.shutdown()

    def _begin(self, taken: Sequence[_Request[_Item, _Result]], at_once: int) -> None:
        """Work on a batch here, or elsewhere as soon as fewer than `at_once` others are under way."""
        if at_once == 1:
            self._answer(taken)
            return
        with self._free:
            self._free.wait_for(lambda: self._under_way < at_once)
            self._under_way += 1
        self._others.submit(self._answer_and_leave, taken)

    def _answer_and_leave(self, taken: Sequence[_Request[_Item, _Result]]) -> None:
        try:
            self._answer(taken)
        finally:
            with self._free:
                self._under_way -= 1
                self._free.notify()

    def _taken(self, begins: float) -> tuple[list[_Request[_Item, _Result]], bool]:
        """The next batch, not before the time `begins`, waiting for a first item; and whether it is the last batch."""
        taken: list[_Request[_Item, _Result]] = []
        requests = self._requests.get()
        while requests is not None:
            taken += requests
            if len(taken) < MOST and self._requests.empty() and (early := begins - time.monotonic()) > 0:
                time.sleep(early)
            if len(taken) >= MOST or self._requests.empty():
                return taken, False
            requests = self._requests.get()
        return taken, True

    def _answer(self, taken: Sequence[_Request[_Item, _Result]]) -> None:
        answers = [answer for _item, answer in taken]
        try:
            results = self._work([item for item, _answer in taken])
        except Exception as error:  # noqa: BLE001 - raised to the callers
            self._loop.call_soon_threadsafe(_fail, answers, error)
        else:
            self._loop.call_soon_threadsafe(_resolve, answers, results)


def _resolve(answers: Sequence[asyncio.Future[_Result]], results: Sequence[_Result]) -> None:
    for answer, result in zip(answers, results, strict=True):
        if not answer.done():
            answer.set_result(result)


def _fail(answers: Sequence[asyncio.Future[_Result]], error: Exception) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_exception(error)
