"""Statements on rates: how often somebody may do something. One row for each, however often it is done."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, text

# Each one takes `every`; as many as fit into the burst may come at once. No row comes back when there is no room.
TAKE = text("""
    INSERT INTO access_rate AS rate (what, whose, free_at) VALUES (:what, :whose, CAST(:now AS timestamptz) + :every)
    ON CONFLICT (what, whose) DO UPDATE SET free_at = greatest(rate.free_at, :now) + :every
      WHERE greatest(rate.free_at, :now) + :every <= CAST(:now AS timestamptz) + :burst
    RETURNING free_at""")

FREE_AT = text("SELECT free_at FROM access_rate WHERE what = :what AND whose = :whose")

SWEEP = text("""
    DELETE FROM access_rate WHERE (what, whose) IN
      (SELECT what, whose FROM access_rate WHERE free_at < :now ORDER BY free_at LIMIT :limit)""")


def take(conn: Connection, what: str, whose: str, now: datetime, every: timedelta, burst: timedelta) -> timedelta | None:
    """Counts one; or, if there is no room for it, tells after how long there will be."""
    if conn.execute(TAKE, {"what": what, "whose": whose, "now": now, "every": every, "burst": burst}).first() is not None:
        return None
    free_at: datetime | None = conn.execute(FREE_AT, {"what": what, "whose": whose}).scalar_one_or_none()
    return timedelta(0) if free_at is None else max(free_at + every - burst - now, timedelta(0))


def sweep(conn: Connection, now: datetime, limit: int) -> int:
    """Deletes what says nothing any more; returns how many."""
    return conn.execute(SWEEP, {"now": now, "limit": limit}).rowcount
