"""The relay's repairs between rounds: expired leases, turns not passed on, deliveries wrongly pending or paused."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import structlog

from ops.runtime.db import Engine, transaction
from ops.runtime.driver.db_distance import round_trip
from pipeline.store.deliveries import claims, inactive_endpoints, notify, ordering, paused
from workers.delivery.report import tally_aside

LEASES: Final = 1.0  # seconds between two checks for leases that have ended
ASIDE: Final = 1.0  # the same for pending deliveries of endpoints that are disabled or removed
REMOVED: Final = 60.0  # the same for paused deliveries of endpoints that are removed
ACTIVE: Final = 2.0  # the same for paused deliveries of endpoints that are active again
TURNS: Final = 5.0  # the same for turns that were never passed on
FAR: Final = 0.02  # seconds that Postgres is away, from which on they are not made in the relay's own thread
TRIPS: Final = 3  # round trips to Postgres in a check that finds nothing, which are no work
SHARE: Final = 0.02  # of a relay's time for each check at most, when there are many endpoints and little is found
LONGEST: Final = 10  # intervals between two checks at most: one check that waited for Postgres puts off none for long
MOST: Final = 1000  # deliveries in one transaction
CHAINS: Final = 200

_log = structlog.get_logger()


class Repairs:
    """Runs each repair at its interval in the relay's thread, in bounded steps, so that claims never wait long."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._chain = ordering.START  # the chain that was checked last
        self._repairs: dict[Callable[[], bool], float] = {
            self._expire: LEASES,
            self._set_aside: ASIDE,
            self._discard_removed: REMOVED,
            self._resume_paused: ACTIVE,
            self._open_turns: TURNS,
        }
        self._next = dict.fromkeys(self._repairs, float("-inf"))

    def turn(self) -> None:
        """Run the repairs that are due."""
        for repair, seconds in self._repairs.items():
            began = time.monotonic()
            if began >= self._next[repair]:
                more = repair()
                ended = time.monotonic()
                away = round_trip()
                worked = ended - began - (TRIPS * away if away >= FAR else 0.0)
                self._next[repair] = ended + (0.0 if more else _wait(seconds, worked))

    def _expire(self) -> bool:
        with transaction(self._engine) as conn:
            expired = claims.expire_leases(conn, datetime.now(UTC), MOST)
            if expired:
                notify.send(conn, set(expired))
        if expired:
            _log.warning("leases_expired", deliveries=len(expired))
        return len(expired) == MOST

    def _set_aside(self) -> bool:
        with transaction(self._engine) as conn:
            moved = inactive_endpoints.set_aside(conn, datetime.now(UTC), MOST)
        tally_aside(moved)
        return moved.total == MOST

    def _discard_removed(self) -> bool:
        with transaction(self._engine) as conn:
            moved = inactive_endpoints.give_up_abandoned(conn, datetime.now(UTC), MOST)
        tally_aside(moved)
        return moved.total > 0

    def _resume_paused(self) -> bool:
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
                notify.send(conn, opened)
        if opened:
            _log.warning("turns_opened", endpoints=len(opened))
        return self._chain != ordering.START


def _wait(interval: float, took: float) -> float:
    """Seconds until the next check, after one that took so many seconds."""
    return min(max(interval, took / SHARE), LONGEST * interval)
