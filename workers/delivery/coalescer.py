"""Does for many what each would do alone: a thread that takes whatever it was asked for since it last looked, in one go.

Under load that makes one transaction out of hundreds; without load nobody waits for company, and nowhere for long.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Final, Generic, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Asked = tuple[_Item, asyncio.Future[_Result]]

MOST: Final = 500  # items at once, so that the first is not kept waiting for the last


class Coalescer(Generic[_Item, _Result]):
    """Asked on the event loop, works in its own thread, from construction to `close`.

    `work` gives one result for each item, in their order; what it raises is raised to everyone who asked.
    """

    def __init__(self, name: str, work: Callable[[Sequence[_Item]], Sequence[_Result]], apart: float = 0.0) -> None:
        """Who asks soon after another may wait until `apart` seconds after that one's work began, for company."""
        self._apart = apart
        self._loop = asyncio.get_running_loop()
        self._work = work
        self._noted: list[_Asked[_Item, _Result]] = []
        self._asked: SimpleQueue[list[_Asked[_Item, _Result]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def ask(self, item: _Item) -> asyncio.Future[_Result]:
        """Await what this gives for the result."""
        if not self._noted:
            self._loop.call_soon(self._hand_over)
        answer: asyncio.Future[_Result] = self._loop.create_future()
        self._noted.append((item, answer))
        return answer

    async def close(self) -> None:
        """Return when everything asked for before has been done, and the thread has ended."""
        self._hand_over()
        self._asked.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    def _hand_over(self) -> None:
        """Once for all that was asked in one turn of the loop: the thread would wake for the first and miss the rest."""
        if self._noted:
            self._asked.put(self._noted)
            self._noted = []

    def _serve(self) -> None:
        last, begins = False, 0.0
        while not last:
            taken, last = self._taken(begins)
            begins = time.monotonic() + self._apart
            for start in range(0, len(taken), MOST):
                self._answer(taken[start : start + MOST])

    def _taken(self, begins: float) -> tuple[list[_Asked[_Item, _Result]], bool]:
        """All that there is when it `begins`, waited for if need be; and whether it is the last."""
        taken: list[_Asked[_Item, _Result]] = []
        asked = self._asked.get()
        while asked is not None:
            taken += asked
            if len(taken) < MOST and self._asked.empty() and (early := begins - time.monotonic()) > 0:
                time.sleep(early)
            if len(taken) >= MOST or self._asked.empty():
                return taken, False
            asked = self._asked.get()
        return taken, True

    def _answer(self, taken: Sequence[_Asked[_Item, _Result]]) -> None:
        answers = [answer for _item, answer in taken]
        try:
            results = self._work([item for item, _answer in taken])
        except Exception as error:  # noqa: BLE001 - theirs who asked
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
