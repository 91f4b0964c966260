"""Keeps the search index: copies what the sequencer has given a position, in bounded transactions.

What was copied and how far is one transaction, so a process that is killed repeats nothing and leaves nothing out; of several
processes one at a time copies. Content that is erased meanwhile is not copied: see the triggers of migration 0021.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine

from ops.runtime.db import sqlstate, transaction
from pipeline.store.search import indexing

ENTRIES: Final = 4000  # in one transaction, which erasures wait for
DELIVERIES: Final = 20_000
LOGS: Final = 1000  # of which one turn copies something
ROUND: Final = 2.0  # seconds of copying after which others have their turn
KEPT: Final = timedelta(days=8)  # of figures by the minute

_LOCKED_OUT: Final = "55P03"  # SQLSTATE lock_not_available


class Turn(NamedTuple):
    """What one turn has copied; whether there is more at once; and how many positioned entries are not copied."""

    events: int
    deliveries: int
    more: bool
    behind: int


class Indexer:
    """Copies in turns, for one thread."""

    def __init__(self, engine: Engine, entries: int = ENTRIES) -> None:
        """`engine` has the rights of waxseal_console."""
        self._engine = engine
        self._entries = entries
        self._settled = 0  # no delivery with a number up to this one is added any more
        self._drawn: tuple[int, int | None] | None = None  # a number, and a writer that came after whoever drew it

    def turn(self, seconds: float = ROUND) -> Turn | None:
        """Copies for about `seconds`, or until all is copied. None: another process copies."""
        began = time.monotonic()
        with transaction(self._engine) as conn:
            if not indexing.lead(conn):
                return None
            logs = indexing.behind(conn, LOGS)
        deliveries, more = self._copy_deliveries(began + seconds / 2)  # they take a tenth of the time of events
        events, left = self._copy_events(logs, began + seconds)
        with transaction(self._engine) as conn:
            dropped = indexing.lead(conn) and indexing.drop_closed(conn, DELIVERIES)
            return Turn(events, deliveries, bool(left or more or dropped), indexing.lag(conn))

    def _copy_events(self, logs: list[int], until: float) -> tuple[int, int]:
        """A piece of each log in turn. Gives how many events were copied, and how many of the logs may have more."""
        copied = 0
        while logs and time.monotonic() < until:
            left = []
            for log in logs:
                found = self._piece(log)
                copied += found.rows
                if found.passed == self._entries:
                    left.append(log)
            logs = left
        return copied, len(logs)

    def _piece(self, log: int) -> indexing.Copied:
        try:
            with transaction(self._engine) as conn:
                if not indexing.lead(conn):
                    return indexing.Copied(0, 0)
                return indexing.copy_events(conn, log, self._entries, datetime.now(UTC) - KEPT)
        except Exception as error:
            if sqlstate(error) != _LOCKED_OUT:
                raise
            return indexing.Copied(0, 0)  # a long erasure: in the next turn

    def _copy_deliveries(self, until: float) -> tuple[int, bool]:
        """Gives how many deliveries were copied, and whether there are more."""
        copied = 0
        while time.monotonic() < until:
            with transaction(self._engine) as conn:
                if not indexing.lead(conn):
                    return copied, False
                settling = self._settle(conn)
                found = indexing.copy_deliveries(conn, self._settled, DELIVERIES)
            copied += found.rows
            if not settling and found.passed < DELIVERIES:
                return copied, False
        return copied, True

    def _settle(self, conn: Connection) -> bool:
        """Finds up to which number all deliveries are committed or never will be. Whether the next step may find it.

        A number is drawn by a transaction that begins to write at that moment, if it has not before. So a writer that is
        numbered in the next step came after it, and when no transaction before that writer is left, the number is settled.
        """
        if self._drawn is None:
            last = indexing.last_delivery(conn)
            self._drawn = (last, None) if last != self._settled else None
            return self._drawn is not None
        number, writer = self._drawn
        if writer is None:
            self._drawn = (number, indexing.next_writer(conn))
            return True
        if indexing.oldest_writer(conn) >= writer:
            self._settled, self._drawn = number, None
        return False
