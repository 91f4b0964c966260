"""Checks again and again, beside the work, whether a server answers: an idle process has to know too.

The work's own failures show a server that refuses. A frozen server refuses nothing, and an idle process asks it for nothing.
"""

import itertools
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from ops.runtime.db import make_engine
from ops.runtime.driver.db_deadline import Connection
from ops.settings import Settings
from ops.telemetry import table
from ops.telemetry.probes import Check
from pipeline.store.admin import queries

EVERY: Final = 2.0  # seconds between two checks
_ANSWER: Final = 3.0  # seconds that Postgres may take for one
_END_SECONDS: Final = 1.0
_LOOK_AROUND: Final = 5  # checks of Postgres until its other hosts are asked, too, whether one of them was promoted

_log = structlog.get_logger()


class Pulse:
    """Calls `ask` from construction to `close`, in a thread of its own, so that a server that is silent blocks nothing else.

    `ask` returns when the server has answered and raises any error when it has not; it must end by itself within seconds.
    """

    def __init__(self, server: str, ask: Callable[[], None], limit: float) -> None:
        """`server` is its name in messages; an answer counts for `limit` seconds."""
        self._server = server
        self._ask = ask
        self._limit = limit
        self._answered: float | None = None  # monotonic
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"pulse-{server}", daemon=True)
        self._thread.start()

    def fault(self) -> str | None:
        """Give None while the last answer is less than `limit` seconds old, else for how long there has been none."""
        answered = self._answered
        if answered is None:
            return f"{self._server} has not answered yet"
        age = time.monotonic() - answered
        return None if age < self._limit else f"{self._server} has not answered for {age:.0f} s"

    def with_work(self, trouble: Check) -> Check:
        """A check that gives the fault that the work has seen, if any, and else this one's."""
        return lambda: trouble() or self.fault()

    def close(self) -> None:
        """Stop asking; wait a second at most for an answer that is still awaited."""
        self._stop.set()
        self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        silent = False
        while not self._stop.is_set():
            try:
                self._ask()
            except Exception as error:  # noqa: BLE001 - any error means no answer; the next check may get one
                if not silent:
                    _log.warning("server_silent", server=self._server, error=type(error).__name__)
                silent = True
            else:
                if silent:
                    _log.info("server_answers", server=self._server)
                silent, self._answered = False, time.monotonic()
                table.SERVER_LAST_ANSWER.labels(self._server.lower()).set_to_current_time()
            self._stop.wait(EVERY)


def of_postgres(settings: Settings) -> Pulse:
    """The pulse of Postgres, over a connection that serves nothing else."""
    engine = make_engine(settings.direct_url, pool_size=1, statement_timeout=_ANSWER)

    asked = itertools.count()

    def ask() -> None:
        with engine.connect() as conn:
            queries.answered(conn)
            driver = conn.connection.driver_connection
            if isinstance(driver, Connection) and driver.look_around is not None and next(asked) % _LOOK_AROUND == 0:
                driver.look_around()

    return Pulse("Postgres", ask, settings.unready_after)


class Recent:
    """The last failure of the work: until it succeeds, or for `seconds`, as an idle process has no success to clear it."""

    def __init__(self, seconds: float = 10.0) -> None:
        self._seconds = seconds
        self._said: tuple[float, str] | None = None

    def note(self, reason: str) -> None:
        """Note a failure."""
        self._said = time.monotonic(), reason

    def clear(self) -> None:
        """Note a success."""
        self._said = None

    def fault(self) -> str | None:
        """Give the reason, if there still is one."""
        said = self._said
        return said[1] if said is not None and time.monotonic() - said[0] < self._seconds else None
