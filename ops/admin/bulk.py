"""Acts of operators on many rows: counted first, recorded in the audit, done in chunks at a bounded rate.

Each chunk is one transaction, after which its rows no longer match. So repeating an interrupted command does the rest,
whenever and however it was interrupted.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine

from ops.runtime.db import transaction
from pipeline.store.admin import audit
from schemas.access import By

RATE: Final = 500.0  # rows per second, by default
MOST: Final = 500  # rows in one transaction
_CHUNK_SECONDS: Final = 0.25  # how long a chunk takes at the requested rate

Step = Callable[[Connection, int], int | None]
"""Processes at most that many rows in the transaction; returns how many, or None when none are left."""


@dataclass(frozen=True, slots=True)
class Named:
    """A tenant's endpoint or mailbox by its name, and the operator who acts on it."""

    tenant: str
    name: str
    who: By = ""


@dataclass(frozen=True, slots=True)
class Act:
    """Who does what, and the filter that selects the rows, as the audit records them."""

    who: By
    name: str
    filter: Mapping[str, Any]


class Pace:
    """Limits an act to `rate` rows per second, measured from its beginning."""

    def __init__(
        self, rate: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._began = clock()

    @property
    def chunk(self) -> int:
        """The number of rows in one chunk."""
        return max(1, min(MOST, int(self._rate * _CHUNK_SECONDS)))

    def keep(self, done: int) -> None:
        """Sleep until `done` rows since the beginning do not exceed the rate."""
        early = self._began + done / self._rate - self._clock()
        if early > 0:
            self._sleep(early)


@dataclass(slots=True)
class Tally:
    """How many rows were processed so far."""

    done: int = 0


@contextmanager
def noted(engine: Engine, act: Act, planned: int) -> Iterator[Tally]:
    """Records the act in the audit before the block, and the tally's count when the block ends, even by an error."""
    with transaction(engine) as conn:
        id_ = audit.record(conn, act.who, act.name, act.filter, planned, datetime.now(UTC), "begun")
    tally = Tally()
    try:
        yield tally
    finally:
        with transaction(engine) as conn:
            audit.end(conn, id_, tally.done, datetime.now(UTC))


def perform(engine: Engine, act: Act, planned: int, step: Step, pace: Pace, show: Callable[[int], None]) -> int:
    """Run the step until no rows are left; returns how many were processed. When it raises, finished chunks stay committed."""
    with noted(engine, act, planned) as tally:
        while _chunk(engine, step, pace.chunk, tally):
            show(tally.done)
            pace.keep(tally.done)
    return tally.done


def _chunk(engine: Engine, step: Step, size: int, tally: Tally) -> bool:
    with uninterrupted():
        with transaction(engine) as conn:
            moved = step(conn, size)
        tally.done += moved or 0
    return moved is not None


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Delays Ctrl-C to the end of the block, so that what is committed in it is counted, too; a second one is not delayed."""
    main = threading.current_thread() is threading.main_thread()  # Ctrl-C reaches no other
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    delayed = False

    def delay(_number: int, _frame: object) -> None:
        nonlocal delayed
        if delayed:
            raise KeyboardInterrupt
        delayed = True

    signal.signal(signal.SIGINT, delay)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if delayed:
        raise KeyboardInterrupt
