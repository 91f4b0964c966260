"""Statements on what an endpoint missed while it was disabled: kept as paused, until it is released or discarded."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, TextClause, text

from pipeline.store.deliveries import deliveries, notify

COUNT = text("""
    SELECT count(*), min(created_at), max(created_at) FROM delivery WHERE endpoint_id = :endpoint_id AND state = 'paused'""")

# Who plans may not know for a moment that an endpoint is enabled again; what was missed before is for somebody to decide. One
# step in an index for each endpoint that was ever enabled again.
LATE: Final = "1 minute"  # by which clocks may differ, and more
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
      ORDER BY created_at, id LIMIT :limit FOR UPDATE SKIP LOCKED)
    UPDATE delivery SET {becomes} FROM missed WHERE delivery.id = missed.id
    RETURNING endpoint_id, chain_id, ordered"""

# Due at once, in its turn where there is an order. The age begins anew: it was not the endpoint's choice to wait.
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
    """How many deliveries an endpoint missed, and when the events of the first and the last of them were recorded."""

    count: int
    oldest: datetime | None
    newest: datetime | None


def count(conn: Connection, endpoint_id: int) -> Missed:
    """What the endpoint missed."""
    return Missed(*conn.execute(COUNT, {"endpoint_id": endpoint_id}).one())


def left(conn: Connection) -> dict[int, datetime]:
    """The active endpoints for which something was paused after they were enabled again, and since when that counts."""
    return {row[0]: row[1] for row in conn.execute(LEFT)}


def release(conn: Connection, endpoint_id: int, now: datetime, limit: int | None = None, since: datetime | None = None) -> int:
    """Makes what the endpoint missed `since` then due, `limit` at most, oldest first; wakes the relay. Returns how many."""
    released = _decide(conn, RELEASE, endpoint_id, now, limit, since)
    if released:
        notify.ring(conn, [endpoint_id])
    return len(released)


def discard(conn: Connection, endpoint_id: int, now: datetime, limit: int | None = None) -> int:
    """Ends what the endpoint missed for good, `limit` at most, oldest first; returns how many."""
    return len(_decide(conn, DISCARD, endpoint_id, now, limit))


def _decide(
    conn: Connection,
    statement: TextClause,
    endpoint_id: int,
    now: datetime,
    limit: int | None,
    since: datetime | None = None,
) -> Sequence[Row[Any]]:
    asked = {"endpoint_id": endpoint_id, "now": now, "limit": limit, "since": since}
    decided = conn.execute(statement, asked).all()
    deliveries.pass_on(conn, {(row.endpoint_id, row.chain_id) for row in decided if row.ordered}, now)
    return decided
