"""What a relay mends between two rounds: leases that ended, turns that were not passed on, what is pending or paused and should not be."""

import time
from datetime import UTC, datetime
from typing import Final

import structlog
from sqlalchemy import Engine

from ops.db import transaction
from pipeline.store import bell, claims, missed, turns

LEASES: Final = 1.0  # seconds between two looks for leases that have ended
ASIDE: Final = 1.0  # seconds between two looks for what is pending at endpoints that are disabled or removed
UP: Final = 2.0  # seconds between two looks for what is paused at endpoints that are active
TURNS: Final = 5.0  # seconds between two looks for turns that were never passed on
MOST: Final = 1000  # deliveries, or chains, in one transaction

_log = structlog.get_logger()


class Sweeps:
    """Each at its time, in the relay's thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._leases_at = self._aside_at = self._up_at = self._turns_at = float("-inf")
        self._chain = turns.START  # that was looked at last

    def turn(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        if now >= self._leases_at:
            self._leases_at = now if self._expire() == MOST else now + LEASES
        if now >= self._aside_at:
            self._aside_at = now if self._set_aside() == MOST else now + ASIDE
        if now >= self._up_at:
            self._up_at = now if self._take_up() == MOST else now + UP
        if now >= self._turns_at:
            self._turns_at = now + (TURNS if self._open_turns() == turns.START else 0.0)

    def _expire(self) -> int:
        with transaction(self._engine) as conn:
            expired = claims.expire_leases(conn, datetime.now(UTC), MOST)
            if expired:
                bell.ring(conn, set(expired))
        if expired:
            _log.warning("leases_expired", deliveries=len(expired))
        return len(expired)

    def _set_aside(self) -> int:
        with transaction(self._engine) as conn:
            aside = claims.set_aside(conn, datetime.now(UTC), MOST)
        if aside:
            _log.info("deliveries_set_aside", deliveries=aside)
        return aside

    def _take_up(self) -> int:
        now, taken = datetime.now(UTC), 0
        with transaction(self._engine) as conn:
            for endpoint_id in missed.left(conn):
                taken += missed.release(conn, endpoint_id, now, MOST - taken)
        if taken:
            _log.info("deliveries_taken_up", deliveries=taken)
        return taken

    def _open_turns(self) -> turns.Pair:
        with transaction(self._engine) as conn:
            opened, self._chain = turns.open_turns(conn, self._chain, datetime.now(UTC), MOST)
            if opened:
                bell.ring(conn, opened)
        if opened:
            _log.warning("turns_opened", endpoints=len(opened))
        return self._chain
