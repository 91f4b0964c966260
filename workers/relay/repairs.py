"""What a relay mends between two rounds: ended leases, turns not passed on, and what is pending or paused and should not be."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import structlog

from ops.runtime.db import Engine, transaction
from pipeline.store.deliveries import claims, inactive_endpoints, notify, ordering, paused
from workers.delivery.report import tally_aside

LEASES: Final = 1.0  # seconds between two looks for leases that have ended
ASIDE: Final = 1.0  # for what is pending at endpoints that are disabled or removed
GONE: Final = 60.0  # for what is kept for endpoints that are removed
UP: Final = 2.0  # for what was paused at endpoints that were active again
TURNS: Final = 5.0  # for turns that were never passed on
SHARE: Final = 0.02  # of a relay's time for each at most, when there are many endpoints and little is found
MOST: Final = 1000  # deliveries in one transaction
CHAINS: Final = 200

_log = structlog.get_logger()


class Sweeps:
    """Each in its time, in the relay's thread, a bounded piece at a time: claims wait for none of them for long."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._chain = ordering.START  # that was looked at last
        self._sweeps: dict[Callable[[], bool], float] = {
            self._expire: LEASES,
            self._set_aside: ASIDE,
            self._give_up: GONE,
            self._take_up: UP,
            self._open_turns: TURNS,
        }
        self._next = dict.fromkeys(self._sweeps, float("-inf"))

    def turn(self) -> None:
        """Do what is due."""
        for sweep, seconds in self._sweeps.items():
            began = time.monotonic()
            if began >= self._next[sweep]:
                more = sweep()
                ended = time.monotonic()
                self._next[sweep] = ended + (0.0 if more else max(seconds, (ended - began) / SHARE))

    def _expire(self) -> bool:
        with transaction(self._engine) as conn:
            expired = claims.expire_leases(conn, datetime.now(UTC), MOST)
            if expired:
                notify.ring(conn, set(expired))
        if expired:
            _log.warning("leases_expired", deliveries=len(expired))
        return len(expired) == MOST

    def _set_aside(self) -> bool:
        with transaction(self._engine) as conn:
            moved = inactive_endpoints.set_aside(conn, datetime.now(UTC), MOST)
        tally_aside(moved)
        return moved.total == MOST

    def _give_up(self) -> bool:
        with transaction(self._engine) as conn:
            moved = inactive_endpoints.give_up_abandoned(conn, datetime.now(UTC), MOST)
        tally_aside(moved)
        return moved.total > 0

    def _take_up(self) -> bool:
        now, taken = datetime.now(UTC), 0
        with transaction(self._engine) as conn:
            for endpoint_id, since in paused.left(conn).items():
                taken += paused.release(conn, endpoint_id, now, MOST - taken, since)
        if taken:
            _log.info("deliveries_taken_up", deliveries=taken)
        return taken == MOST

    def _open_turns(self) -> bool:
        with transaction(self._engine) as conn:
            opened, self._chain = ordering.open_turns(conn, self._chain, datetime.now(UTC), CHAINS)
            if opened:
                notify.ring(conn, opened)
        if opened:
            _log.warning("turns_opened", endpoints=len(opened))
        return self._chain != ordering.START
