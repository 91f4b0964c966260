"""Seals a log that is far behind in a thread of its own, so that the other logs need not wait for it."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

from pipeline.store.log.checkpoints import OpenLog


class Left(Exception):
    """The work was given up: the process ends, or does not lead any more."""


class Lane:
    """Takes one log at a time. Used by one thread."""

    def __init__(self) -> None:
        self._log: OpenLog | None = None
        self._sealed: Future[bool] = Future()
        self._left = threading.Event()

    @property
    def log(self) -> OpenLog | None:
        """The log that is being sealed, or was and is not taken back yet."""
        return self._log

    def start(self, log: OpenLog, seal: Callable[[Callable[[], None]], bool]) -> None:
        """Seal the log; `seal` is given a check to call now and then, which raises `Left` when nobody waits any more."""
        self._log, self._sealed, self._left = log, Future(), threading.Event()
        threading.Thread(target=_run, args=(seal, self._left, self._sealed), name="lane", daemon=True).start()

    def take(self) -> tuple[OpenLog, Callable[[], bool]] | None:
        """A log that is done, with what gives its result, or raises; the lane is free again. None while it is not."""
        if self._log is None or not self._sealed.done():
            return None
        log, self._log = self._log, None
        return log, self._sealed.result

    def leave(self) -> None:
        """Give the work up."""
        self._left.set()
        self._log = None


def _run(seal: Callable[[Callable[[], None]], bool], left: threading.Event, sealed: "Future[bool]") -> None:
    def check() -> None:
        if left.is_set():
            raise Left

    try:
        sealed.set_result(seal(check))
    except BaseException as error:  # noqa: BLE001 - whoever takes the result raises it
        sealed.set_exception(error)
