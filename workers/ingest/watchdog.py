"""Watches over the thread that admits messages: one that takes it long is put aside, one that hangs it ends the process.

Both limits are of CPU time, because admitting waits for nothing: a busy machine, or a process that stood still, reaches none.
"""

import faulthandler
import signal
import time
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

SOFT: Final = 1.0  # seconds after which a message is put aside, where Python can
HARD: Final = 5.0  # seconds without progress after which the process is ended: Python cannot, inside of C code
TICK: Final = 0.25
PROGRESS: Final = 0.5  # seconds between two notes of progress

_Result = TypeVar("_Result")
_Parameters = ParamSpec("_Parameters")


class TooSlow(BaseException):
    """A message took too long. No `Exception`, so that nothing takes it for a fault in the message."""


class Watch:
    """For the main thread, which receives signals. Does nothing until it is installed."""

    def __init__(self, soft: float = SOFT, hard: float = HARD) -> None:
        self._soft, self._hard = soft, hard
        self._working = False
        self._serial = 0  # of the work
        self._seen, self._ticks = 0, 0
        self._next = float("inf")  # monotonic seconds: when progress is to be noted again

    def install(self) -> None:
        """Begin, in the main thread.

        The second signal prints where every thread is, without Python's help, and then ends the process.
        """
        signal.signal(signal.SIGVTALRM, self._tick)
        signal.setitimer(signal.ITIMER_VIRTUAL, TICK, TICK)
        faulthandler.register(signal.SIGPROF, all_threads=True, chain=True)
        self._next = 0.0
        self.progress()

    def progress(self) -> None:
        """Say that the thread goes on; cheap, so it may be said between any two messages."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + PROGRESS
            signal.setitimer(signal.ITIMER_PROF, self._hard)

    def run(self, work: Callable[_Parameters, _Result], *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        """What `work` gives. Raises `TooSlow` when it takes longer than `soft` seconds."""
        self._serial += 1
        self._working = True
        try:
            return work(*args, **kwargs)
        finally:
            self._working = False

    def _tick(self, *_: Any) -> None:
        if self._seen != self._serial:
            self._seen, self._ticks = self._serial, 0
        self._ticks += 1
        if self._working and self._ticks * TICK > self._soft:
            self._ticks = 0
            raise TooSlow
