"""Counts tries by the minute in the background: the last minutes again and again, and each once more when it is over.

What is counted is counted anew from the tries themselves, so a process that is killed, and a second one, do no harm.
"""

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

from sqlalchemy import Engine

from ops.admin.search.indexing import KEPT
from ops.runtime.db import transaction
from pipeline.store.search import indexing, minutes

EVERY: Final = 10.0  # seconds between two counts
_MINUTE: Final = timedelta(minutes=1)
_LATE: Final = (5, 30)  # minutes after which a minute is counted once more: a try is recorded when it has ended
_BACK: Final = timedelta(hours=24)  # that are counted afterwards, when nobody has counted for long
_FIRST: Final = timedelta(hours=1)  # and when nobody has ever counted
_PIECE: Final = timedelta(minutes=10)  # in one transaction


class TryCounter:
    """Counts in turns, for one thread."""

    def __init__(self, engine: Engine) -> None:
        """`engine` has the rights of waxseal_console."""
        self._engine = engine
        self._next = 0.0
        self._pruned = 0.0

    def turn(self, now: datetime | None = None) -> bool:
        """Counts, if it is time to; whether it has. Not if another process does."""
        if now is None and time.monotonic() < self._next:
            return False
        this = (now or datetime.now(UTC)).replace(second=0, microsecond=0)
        with transaction(self._engine) as conn:
            if not indexing.lead(conn):
                return False
            before = minutes.counted_to(conn)
        first = this - _FIRST if before is None else min(max(before - _MINUTE, this - _BACK), this - _MINUTE)
        for begin, end in pairwise(_marks(first, this + _MINUTE)):
            self._count(begin, end, reached=min(end, this))
        if before is not None and before < this:
            for late in _LATE:
                self._count(max(before, this - _BACK) - late * _MINUTE, this - late * _MINUTE)
        self._prune(this)
        self._next = time.monotonic() + EVERY
        return True

    def _count(self, begin: datetime, end: datetime, reached: datetime | None = None) -> None:
        with transaction(self._engine) as conn:
            if indexing.lead(conn):
                minutes.count(conn, begin, end)
                if reached is not None:
                    minutes.reached(conn, reached)

    def _prune(self, this: datetime) -> None:
        if time.monotonic() - self._pruned > 3600.0 or not self._pruned:
            self._pruned = time.monotonic()
            with transaction(self._engine) as conn:
                minutes.prune(conn, this - KEPT)


def _marks(first: datetime, end: datetime) -> list[datetime]:
    marks = [first]
    while marks[-1] + _PIECE < end:
        marks.append(marks[-1] + _PIECE)
    return [*marks, end]
