"""Processes that end again and again: noticed by the supervisor, and written as operator events."""

import queue
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import structlog

from ops.errors import one_line
from ops.runtime.db import make_engine, transaction
from pipeline.store.admin import notices

ENDS: Final = 5  # so many ends
WITHIN: Final = 300.0  # seconds are a crash loop
AGAIN: Final = 3600.0  # seconds between two events of one process
_MOST_WAITING: Final = 100
_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 30.0
_STATEMENT_SECONDS: Final = 5.0

_log = structlog.get_logger()


class CrashLoops:
    """Calls `tell` with a line on each process that ends five times within five minutes, at most once an hour for each."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._ends: dict[str, deque[float]] = {}
        self._told: dict[str, float] = {}

    def ended(self, name: str, how: str, now: float) -> None:
        """Note that the process ended at `now` (monotonic), and how."""
        ends = self._ends.setdefault(name, deque(maxlen=ENDS))
        ends.append(now)
        lasted = now - ends[0]
        if len(ends) < ENDS or lasted > WITHIN or now - self._told.get(name, -AGAIN) < AGAIN:
            return
        self._told[name] = now
        _log.error("crash_loop", name=name, ends=len(ends), seconds=round(lasted), how=how)
        self._tell(f"{name} ended {len(ends)} times within {lasted:.0f} s, last: {how}")


class EventWriter:
    """Writes events from a thread of its own, as Postgres may be what is down. Tries each until it is written, or `close`."""

    def __init__(self, database_url: str) -> None:
        self._engine = make_engine(database_url, pool_size=1, statement_timeout=_STATEMENT_SECONDS)
        self._waiting: queue.Queue[tuple[datetime, str] | None] = queue.Queue(_MOST_WAITING)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crash-loops", daemon=True)
        self._thread.start()

    def write(self, detail: str) -> None:
        """Have an event written, dated now. Does not wait. If a hundred wait already, it is only in the log."""
        try:
            self._waiting.put_nowait((datetime.now(UTC), detail))
        except queue.Full:
            _log.warning("crash_loop_not_written", detail=detail)

    def close(self) -> None:
        """Stop; an event that is being written has a second to be."""
        self._stop.set()
        with suppress(queue.Full):  # then the thread finds that it is to stop after the first
            self._waiting.put_nowait(None)
        self._thread.join(1.0)
        self._engine.dispose()

    def _run(self) -> None:
        while (event := self._waiting.get()) is not None and not self._stop.is_set():
            wait = _FIRST_WAIT
            while not self._written(*event) and not self._stop.wait(wait):
                wait = min(2 * wait, _LONGEST_WAIT)

    def _written(self, at: datetime, detail: str) -> bool:
        try:
            with transaction(self._engine) as conn:
                notices.note_crash_loop(conn, detail, at)
        except Exception as error:  # noqa: BLE001 - whatever it is, the supervisor goes on; the next try may succeed
            _log.warning("crash_loop_not_written_yet", reason=one_line(error))
            return False
        return True
