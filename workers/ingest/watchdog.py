"""Watches the thread that admits messages: a slow message is interrupted and set aside, one that hangs ends the process.

Both limits count CPU time, because admitting waits for nothing: a busy machine or a suspended process exceeds neither.
"""

import faulthandler
import signal
import time
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

SOFT: Final = 1.0  # seconds of CPU until a message is interrupted by an exception, if Python code runs
HARD: Final = 5.0  # seconds of CPU without progress until the process is killed: C code cannot be interrupted
TICK: Final = 0.25
PROGRESS: Final = 0.5  # seconds between two resets of the hard limit

_Result = TypeVar("_Result")
_Parameters = ParamSpec("_Parameters")


class TooSlow(BaseException):
    """A message took too long. Not an `Exception`, so that no handler takes it for a fault in the message."""


class Watch:
    """For the main thread, which receives signals. Does nothing until it is installed."""

    def __init__(self, soft: float = SOFT, hard: float = HARD) -> None:
        self._soft, self._hard = soft, hard
        self._working = False
        self._serial = 0  # counts the calls of `run`
        self._seen, self._ticks = 0, 0
        self._next = float("inf")  # monotonic seconds: when progress is to be noted again

    def install(self) -> None:
        """Start both timers, in the main thread.

        The second signal's handler is C code that prints every thread's stack, and then the process ends.
        """
        signal.signal(signal.SIGVTALRM, self._tick)
        signal.setitimer(signal.ITIMER_VIRTUAL, TICK, TICK)
        faulthandler.register(signal.SIGPROF, all_threads=True, chain=True)
        self._next = 0.0
        self.progress()

    def close(self) -> None:
        """Stop both timers: Python resets signal handlers before it has exited, and the next tick would kill the process."""
        self._next = float("inf")
        for timer in (signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
            signal.setitimer(timer, 0)

    def progress(self) -> None:
        """Note that the thread makes progress; cheap enough to call between any two messages."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + PROGRESS
            signal.setitimer(signal.ITIMER_PROF, self._hard)

    def run(self, work: Callable[_Parameters, _Result], *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        """Call `work` and give its result. Raises `TooSlow` when it takes more than `soft` seconds of CPU."""
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
