"""Statements on the deliveries that an endpoint missed while it was disabled: paused until they are released or discarded."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, TextClause, text

from pipeline.store.deliveries import deliveries, notify

COUNT = text("""
    SELECT count(*), min(created_at), max(created_at) FROM delivery WHERE endpoint_id = :endpoint_id AND state = 'paused'""")

OLDEST = text("""
    SELECT id FROM delivery WHERE endpoint_id = :endpoint_id AND state = 'paused' ORDER BY created_at, id LIMIT :limit""")

# For a moment, a process that plans may not know that an endpoint is enabled again. Deliveries missed before that await an
# operator's decision. One step in an index for each endpoint that was ever enabled again.
LATE: Final = "1 minute"  # more than clocks may differ by
LEFT = text(f"""
    SELECT endpoint_id, enabled_at - interval '{LATE}' FROM endpoint_health JOIN endpoint ON endpoint.id = endpoint_id
    CROSS JOIN LATERAL (
      SELECT FROM delivery WHERE delivery.endpoint_id = endpoint.id AND delivery.state = 'paused'
      AND created_at > enabled_at - interval '{LATE}' ORDER BY created_at, id LIMIT 1) AS late
    WHERE endpoint.state = 'active' AND enabled_at IS NOT NULL""")  # noqa: S608 - a constant

# Oldest first.
_MISSED = """
    WITH missed AS MATERIALIZED (
      SELECT id FROM delivery WHERE endpoint_id = :endpoint_id AND state = 'paused'
      AND created_at > coalesce(CAST(:since AS timestamptz), '-infinity')
      AND created_at <= coalesce(CAST(:until AS timestamptz), 'infinity')
      ORDER BY created_at, id LIMIT :limit FOR UPDATE SKIP LOCKED)
    UPDATE delivery SET {becomes} FROM missed WHERE delivery.id = missed.id
    RETURNING endpoint_id, chain_id, ordered"""

# Due at once, at an ordered endpoint in its turn. The age restarts, because the delivery could not have been tried.
RELEASE = text(
    _MISSED.format(
        becomes="state = 'pending', age_from = :now, next_attempt_at = CASE WHEN NOT ordered THEN CAST(:now AS timestamptz) END"
    )
)
DISCARD = text(
    _MISSED.format(becomes="state = 'discarded', settled_at = :now, error = 'missed while the endpoint was disabled'")
)


@dataclass(frozen=True, slots=True)
class Missed:
    """The number of deliveries that an endpoint missed, and when the first and the last of their events were recorded."""

    count: int
    oldest: datetime | None
    newest: datetime | None


def count(conn: Connection, endpoint_id: int) -> Missed:
    """The deliveries that the endpoint missed."""
    return Missed(*conn.execute(COUNT, {"endpoint_id": endpoint_id}).one())


def oldest(conn: Connection, endpoint_id: int, limit: int) -> Sequence[int]:
    """The ids of the oldest of them."""
    return conn.execute(OLDEST, {"endpoint_id": endpoint_id, "limit": limit}).scalars().all()


def left(conn: Connection) -> dict[int, datetime]:
    """The active endpoints with deliveries paused after they were enabled again, and the time since when those count."""
    return {row[0]: row[1] for row in conn.execute(LEFT)}


def release(
    conn: Connection,
    endpoint_id: int,
    now: datetime,
    limit: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> int:
    """Makes at most `limit` deliveries due that were missed after `since` and up to `until`, oldest first; returns how many.

    Notifies the relays.
    """
    released = _decide(conn, RELEASE, endpoint_id, now, limit, since, until)
    if released:
        notify.send(conn, [endpoint_id])
    return len(released)


def discard(conn: Connection, endpoint_id: int, now: datetime, limit: int | None = None, until: datetime | None = None) -> int:
    """Discards at most `limit` deliveries that were missed up to `until`, oldest first; returns how many."""
    return len(_decide(conn, DISCARD, endpoint_id, now, limit, None, until))


def _decide(
    conn: Connection,
    statement: TextClause,
    endpoint_id: int,
    now: datetime,
    limit: int | None,
    since: datetime | None,
    until: datetime | None,
) -> Sequence[Row[Any]]:
    asked = {"endpoint_id": endpoint_id, "now": now, "limit": limit, "since": since, "until": until}
    decided = conn.execute(statement, asked).all()
    deliveries.pass_on(conn, {(row.endpoint_id, row.chain_id) for row in decided if row.ordered}, now)
    return decided
