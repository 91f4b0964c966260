"""What a process does beside its work, now and then, in a thread of its own."""

import threading
from collections.abc import Callable
from typing import Final

import structlog

SOON: Final = 30.0  # seconds until a chore that failed is done again, if it is not due before
_END_SECONDS: Final = 2.0

_log = structlog.get_logger()


class Chore:
    """Done at once and then every so many seconds, from construction to `close`, whatever it raises."""

    def __init__(self, name: str, seconds: float, work: Callable[[], None]) -> None:
        self._name = name
        self._seconds = seconds
        self._work = work
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Return when it is not being done any more, or two seconds later: then the process ends in the middle of it."""
        self._stop.set()
        self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            try:
                self._work()
                pause = self._seconds
            except Exception as error:  # noqa: BLE001 - a chore that cannot be done must not end the work beside it
                _log.warning("chore_failed", chore=self._name, error=_one_line(error))
                pause = min(self._seconds, SOON)


def _one_line(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
