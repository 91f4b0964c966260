"""Does for many what each would do alone: a thread that takes whatever it was asked for since it last looked, in one go.

Under load that makes one transaction out of hundreds; without load nobody waits for company.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Final, Generic, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Asked = tuple[_Item, asyncio.Future[_Result]]

MOST: Final = 500  # items at once, so that the first is not kept waiting for the last


class Clerk(Generic[_Item, _Result]):
    """Asked on the event loop, works in its own thread, from construction to `close`.

    `work` gives one result for each item, in their order; what it raises is raised to everyone who asked.
    """

    def __init__(self, name: str, work: Callable[[Sequence[_Item]], Sequence[_Result]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._work = work
        self._asked: SimpleQueue[_Asked[_Item, _Result] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def ask(self, item: _Item) -> asyncio.Future[_Result]:
        """Await what this gives for the result."""
        answer: asyncio.Future[_Result] = self._loop.create_future()
        self._asked.put((item, answer))
        return answer

    async def close(self) -> None:
        """Return when everything asked for before has been done, and the thread has ended."""
        self._asked.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    def _serve(self) -> None:
        while (first := self._asked.get()) is not None:
            taken, last = self._taken(first)
            self._answer(taken)
            if last:
                return

    def _taken(self, first: _Asked[_Item, _Result]) -> tuple[list[_Asked[_Item, _Result]], bool]:
        taken = [first]
        while len(taken) < MOST:
            try:
                asked = self._asked.get_nowait()
            except Empty:
                break
            if asked is None:
                return taken, True
            taken.append(asked)
        return taken, False

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
