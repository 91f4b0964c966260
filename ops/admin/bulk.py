"""Acts of operators on many things: counted first, noted in the audit, done in chunks at a bounded rate.

Each chunk is one transaction that takes what it is done to out of the running, so the same command again does the rest,
whenever and however it was cut off.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine

from ops.runtime.db import transaction
from pipeline.store.admin import audit

RATE: Final = 500.0  # a second, unless somebody asks for another
MOST: Final = 500  # in one transaction
_CHUNK_SECONDS: Final = 0.25  # for which a chunk is enough at the rate that was asked for

Step = Callable[[Connection, int], int | None]
"""Does at most so many more, and says how many; None when nothing is left."""


@dataclass(frozen=True, slots=True)
class Named:
    """A thing of a tenant as a person names it, and who does something to it."""

    tenant: str
    name: str
    who: str = ""


@dataclass(frozen=True, slots=True)
class Act:
    """Who does what to which."""

    who: str
    name: str
    filter: Mapping[str, Any]


class Pace:
    """So many a second, from the first on."""

    def __init__(
        self, rate: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._began = clock()

    @property
    def chunk(self) -> int:
        """How many to do at once."""
        return max(1, min(MOST, int(self._rate * _CHUNK_SECONDS)))

    def keep(self, done: int) -> None:
        """Return when so many may have been done since the beginning."""
        early = self._began + done / self._rate - self._clock()
        if early > 0:
            self._sleep(early)


@dataclass(slots=True)
class Tally:
    """To how many it was done so far."""

    done: int = 0


@contextmanager
def noted(engine: Engine, act: Act, planned: int) -> Iterator[Tally]:
    """Notes the act before the block, and after it, however it ends, what the tally says."""
    with transaction(engine) as conn:
        id_ = audit.record(conn, act.who, act.name, act.filter, planned, datetime.now(UTC), "begun")
    tally = Tally()
    try:
        yield tally
    finally:
        with transaction(engine) as conn:
            audit.end(conn, id_, tally.done, datetime.now(UTC))


def perform(engine: Engine, act: Act, planned: int, step: Step, pace: Pace, show: Callable[[int], None]) -> int:
    """Do it to all; how many it was done to. When it raises, what is done stays done."""
    with noted(engine, act, planned) as tally:
        while (moved := _chunk(engine, step, pace.chunk)) is not None:
            tally.done += moved
            show(tally.done)
            pace.keep(tally.done)
    return tally.done


def _chunk(engine: Engine, step: Step, size: int) -> int | None:
    with transaction(engine) as conn:
        return step(conn, size)
