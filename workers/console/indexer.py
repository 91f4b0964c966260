"""What the console does in the background: it copies what it searches, and counts tries by the minute.

If it dies, the next round, or another console's, goes on where the last transaction ended.
"""

import time
from typing import Final

import structlog

from ops.admin.search.counting import TryCounter
from ops.admin.search.indexing import Indexer, Turn
from ops.errors import one_line
from ops.runtime.db import Engine, passes
from ops.telemetry import search_table

REST: Final = 1.0  # seconds between two rounds when nothing is left over
BUSY: Final = 0.05  # and when there is more: pages are answered meanwhile
BROKEN: Final = 60.0  # after an error that does not pass by itself

_log = structlog.get_logger()


class Indexing:
    """Takes one round after the other; each works for about two seconds at most."""

    def __init__(self, engine: Engine) -> None:
        """`engine` is this thread's alone, with the rights of waxseal_console."""
        self._indexer = Indexer(engine)
        self._counter = TryCounter(engine)
        self._not_before = 0.0

    def turn(self) -> float:
        """Do one round, if this process leads; give the seconds until the next. Raises what passes when Postgres is back.

        Any other error is logged, and the rest of the console goes on.
        """
        if time.monotonic() < self._not_before:
            return REST
        try:
            turn = self._indexer.turn()
            self._counter.turn()
        except Exception as error:
            if passes(error):
                raise
            self._not_before = time.monotonic() + BROKEN
            _log.error("not_indexed", error=one_line(error), again_in=BROKEN)
            return REST
        return _show(turn)


def _show(turn: Turn | None) -> float:
    if turn is None:
        search_table.SEARCH_BEHIND.set(0)
        return REST
    search_table.SEARCH_INDEXED.labels("event").inc(turn.events)
    search_table.SEARCH_INDEXED.labels("delivery").inc(turn.deliveries)
    search_table.SEARCH_BEHIND.set(turn.behind)
    return BUSY if turn.more else REST
