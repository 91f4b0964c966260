"""Calls that may hang for ever, such as those to a network disk: each in a thread of its own, and given up in time."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Final, TypeVar

AT_ONCE: Final = 16  # concurrent calls; while so many hang, further calls are late as well
_BEAT: Final = 1.0  # seconds between two beats of a caller that waits

_Result = TypeVar("_Result")


class Late(Exception):
    """The call was given up, or could not even begin; the text says why, and goes on from the name of what was called."""


class CallsInTime:
    """Makes calls for all threads. Each waits `seconds` at most for one of the slots, and as long to end.

    `beat` is called about once a second while a caller waits.
    """

    def __init__(self, seconds: float, at_once: int = AT_ONCE, beat: Callable[[], None] | None = None) -> None:
        self._seconds = seconds
        self._beat = beat
        self._at_once = at_once
        self._slots = threading.BoundedSemaphore(at_once)

    def call(self, what: str, work: Callable[[], _Result]) -> _Result:
        """What `work` gives, and raises; or `Late`. A call that is given up keeps its slot until it ends."""
        answer: Future[_Result] = Future()
        if not self._in_time(lambda seconds: self._slots.acquire(timeout=seconds)):
            raise Late(f"is busy: {self._at_once} calls wait for it")
        try:
            threading.Thread(target=self._run, args=(work, answer), name="calls", daemon=True).start()
        except (RuntimeError, MemoryError) as error:  # too many threads, or no memory for one: `_run` will not free the slot
            self._slots.release()
            raise Late(f"cannot {what}: {error}") from error
        if not self._in_time(lambda seconds: bool(wait([answer], seconds).done)):
            raise Late(f"did not {what} within {self._seconds:.0f} s")
        return answer.result()

    def _in_time(self, wait_for: Callable[[float], bool]) -> bool:
        """Whether it comes true within the time; `wait_for` waits for so many seconds."""
        if self._beat is None:
            return wait_for(self._seconds)
        until = time.monotonic() + self._seconds
        while (left := until - time.monotonic()) > _BEAT:
            if wait_for(_BEAT):
                return True
            self._beat()
        return wait_for(max(left, 0.0))

    def _run(self, work: Callable[[], _Result], answer: Future[_Result]) -> None:
        try:
            answer.set_result(work())
        except BaseException as error:  # noqa: BLE001 - `call` raises it in the caller's thread
            answer.set_exception(error)
        finally:
            self._slots.release()
