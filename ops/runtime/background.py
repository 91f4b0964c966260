"""Periodic background work of a process, in a thread of its own."""

import threading
from collections.abc import Callable
from typing import Final

import structlog

from ops.errors import one_line

SOON: Final = 30.0  # seconds until a failed chore is tried again, unless it is due earlier
_END_SECONDS: Final = 2.0

_log = structlog.get_logger()


class Chore:
    """Calls `work` at once and then every `seconds`, from construction to `close`, whatever `work` raises."""

    def __init__(self, name: str, seconds: float, work: Callable[[], None]) -> None:
        self._name = name
        self._seconds = seconds
        self._work = work
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; wait up to two seconds for a call of `work` that is running. A longer one is cut off when the process ends."""
        self._stop.set()
        self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            try:
                self._work()
                pause = self._seconds
            except Exception as error:  # noqa: BLE001 - a chore that fails must not end the process
                _log.warning("chore_failed", chore=self._name, error=one_line(error))
                pause = min(self._seconds, SOON)
