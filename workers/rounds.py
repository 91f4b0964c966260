"""The main loop of the processes that work in rounds against Postgres: it survives that Postgres goes away and comes back."""

import random
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from ops.errors import one_line
from ops.runtime.db import passes

RECONNECT: Final = (0.2, 5.0)  # seconds, first and longest wait

_log = structlog.get_logger()


class Rounds:
    """Takes one round after the other until the process is to stop."""

    def __init__(self, stop: threading.Event, turn: Callable[[], float], lost: Callable[[], object] = lambda: None) -> None:
        """`turn` does one round and gives the seconds until the next; `lost` is called when Postgres went away in a round."""
        self._stop = stop
        self._turn = turn
        self._lost = lost
        self.trouble: str | None = "not connected yet"

    def run(self, beat: Callable[[], None]) -> None:
        """Return when the process is to stop. Raises what a round raised, unless it passes when Postgres is back.

        `beat` is called before each round, and at least once a second between two.
        """
        pause = RECONNECT[0]
        while not self._stop.is_set():
            beat()
            try:
                rest = self._turn()
            except Exception as error:
                if not passes(error):
                    raise
                self.trouble = f"Postgres: {type(error).__name__}"
                self._lost()
                _log.warning("database_lost", error=one_line(error), again_in=round(pause, 1))
                self._rest(pause * random.uniform(0.5, 1.0), beat)  # noqa: S311 - spreads the processes, guards nothing
                pause = min(pause * 2, RECONNECT[1])
            else:
                self.trouble, pause = None, RECONNECT[0]
                self._rest(rest, beat)

    def _rest(self, seconds: float, beat: Callable[[], None]) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._stop.wait(min(left, 1.0)):
            beat()
