"""Questions that may hang: each is asked in a thread of its own, so that the others are answered meanwhile."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Generic, TypeVar

_AGAIN: Final = 5.0  # seconds after a failure until the question is asked again

_Answer = TypeVar("_Answer")


class Unheard(Exception):
    """There was no answer in time."""


class Asked(Generic[_Answer]):
    """One question at a time to one server. While it hangs, no other is asked, so that threads do not pile up."""

    def __init__(self) -> None:
        self._run: Future[_Answer] | None = None
        self._began = 0.0
        self._ended = 0.0

    def ask(self, question: Callable[[], _Answer]) -> None:
        """Begin to ask, unless the last question still hangs, or failed just now: then its answer stands for this one's."""
        if self._run is not None and (not self._run.done() or self._failed_just_now(self._run)):
            return
        run: Future[_Answer] = Future()

        def settle() -> None:
            try:
                run.set_result(question())
            except BaseException as error:  # noqa: BLE001 - `answer` raises it
                self._ended = time.monotonic()
                run.set_exception(error)

        self._run, self._began = run, time.monotonic()
        # A daemon does not keep the process from ending while its question hangs.
        threading.Thread(target=settle, name="asked", daemon=True).start()

    def answer(self, seconds: float) -> _Answer:
        """The answer, within that many seconds of when the question was asked. Raises what it raised, or `Unheard`."""
        assert self._run is not None, "nothing was asked"
        try:
            return self._run.result(max(0.0, self._began + seconds - time.monotonic()))
        except TimeoutError:
            if self._run.done():
                raise
            raise Unheard(f"no answer within {time.monotonic() - self._began:.0f} s") from None

    def _failed_just_now(self, run: Future[_Answer]) -> bool:
        return run.exception() is not None and time.monotonic() - self._ended < _AGAIN
