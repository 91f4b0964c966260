"""Calls that may hang for ever, such as those to a network disk: each in a thread of its own, and given up in time."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

AT_ONCE: Final = 16  # concurrent calls; while so many hang, further calls are late as well

_Result = TypeVar("_Result")


class Late(Exception):
    """The call was given up, or could not even begin; the text says why, and goes on from the name of what was called."""


class CallsInTime:
    """Makes calls for all threads. Each waits `seconds` at most for one of the slots, and as long to end."""

    def __init__(self, seconds: float, at_once: int = AT_ONCE) -> None:
        self._seconds = seconds
        self._at_once = at_once
        self._slots = threading.BoundedSemaphore(at_once)

    def call(self, what: str, work: Callable[[], _Result]) -> _Result:
        """What `work` gives, and raises; or `Late`. A call that is given up keeps its slot until it ends."""
        answer: Future[_Result] = Future()
        if not self._slots.acquire(timeout=self._seconds):
            raise Late(f"is busy: {self._at_once} calls wait for it")
        try:
            threading.Thread(target=self._run, args=(work, answer), name="calls", daemon=True).start()
        except (RuntimeError, MemoryError) as error:  # too many threads, or no memory for one: `_run` will not free the slot
            self._slots.release()
            raise Late(f"cannot {what}: {error}") from error
        try:
            return answer.result(self._seconds)
        except TimeoutError:
            if answer.done():  # the work's own error
                raise
            raise Late(f"did not {what} within {self._seconds:.0f} s") from None

    def _run(self, work: Callable[[], _Result], answer: Future[_Result]) -> None:
        try:
            answer.set_result(work())
        except BaseException as error:  # noqa: BLE001 - `call` raises it in the caller's thread
            answer.set_exception(error)
        finally:
            self._slots.release()
