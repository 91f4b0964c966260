"""Statements that show endpoints with their health and undelivered deliveries, and that enable and disable them."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text
from sqlalchemy import RowMapping as Row

# Each count comes from an index of only the deliveries in that state, endpoint by endpoint.
OVERVIEW = text("""
    SELECT endpoint.id, tenant.name AS tenant, endpoint.name, transport, endpoint.state, endpoint.reason, settings,
           coalesce(breaker, 'closed') AS breaker, coalesce(forced, false) AS forced, opened_at, probe_at,
           coalesce(trips, 0) AS trips, coalesce(successes, 0) AS successes, coalesce(failures, 0) AS failures, window_from,
           not_before, failing_since, coalesce(streak, 0) AS streak, last_error, backlog.*, leased, paused
    FROM endpoint JOIN tenant ON tenant.id = tenant_id LEFT JOIN endpoint_health ON endpoint_health.endpoint_id = endpoint.id
    CROSS JOIN LATERAL (
      SELECT count(*) AS pending, count(*) FILTER (WHERE next_attempt_at <= now()) AS overdue,
             count(*) FILTER (WHERE next_attempt_at IS NULL) AS waiting, min(next_attempt_at) AS oldest_due
      FROM delivery WHERE endpoint_id = endpoint.id AND delivery.state = 'pending') AS backlog
    CROSS JOIN LATERAL (
      SELECT count(*) AS leased FROM delivery WHERE endpoint_id = endpoint.id AND delivery.state = 'leased') AS sent
    CROSS JOIN LATERAL (
      SELECT count(*) AS paused FROM delivery WHERE endpoint_id = endpoint.id AND delivery.state = 'paused') AS missed
    WHERE endpoint.state <> 'removed' AND (CAST(:tenant AS text) IS NULL OR tenant.name = :tenant)
    AND (CAST(:name AS text) IS NULL OR endpoint.name = :name)
    ORDER BY tenant.name, endpoint.name""")

# One look into the index of due deliveries for each active endpoint; counts only for those that are shown.
TROUBLED = text("""
    WITH troubled AS (
      SELECT endpoint.id, tenant.name AS tenant, endpoint.name, endpoint.state, endpoint.reason,
             coalesce(breaker, 'closed') AS breaker, coalesce(forced, false) AS forced, not_before, failing_since,
             coalesce(streak, 0) AS streak, last_error, due.oldest AS oldest_due
      FROM endpoint JOIN tenant ON tenant.id = tenant_id
      LEFT JOIN endpoint_health ON endpoint_health.endpoint_id = endpoint.id
      CROSS JOIN LATERAL (
        SELECT min(next_attempt_at) AS oldest FROM delivery WHERE endpoint_id = endpoint.id AND delivery.state = 'pending'
      ) AS due
      WHERE endpoint.state <> 'removed'
      AND (endpoint.state = 'disabled' OR breaker <> 'closed' OR failing_since IS NOT NULL OR not_before > :now
           OR due.oldest < :late)
      ORDER BY endpoint.state = 'disabled' DESC, coalesce(breaker, 'closed') <> 'closed' DESC, oldest_due,
               tenant.name, endpoint.name
      LIMIT :limit)
    SELECT troubled.*,
      (SELECT count(*) FROM delivery WHERE endpoint_id = troubled.id AND delivery.state = 'pending')
      + (SELECT count(*) FROM delivery WHERE endpoint_id = troubled.id AND delivery.state = 'leased') AS pending,
      (SELECT count(*) FROM delivery WHERE endpoint_id = troubled.id AND delivery.state = 'paused') AS paused
    FROM troubled""")

# Locked, so that two operators who enable and disable one endpoint do so one after the other.
STATE = text("SELECT state FROM endpoint WHERE id = :endpoint_id FOR UPDATE")
TURN_ON = text("UPDATE endpoint SET state = 'active', reason = NULL WHERE id = :endpoint_id")
TURN_OFF = text("UPDATE endpoint SET state = 'disabled', reason = :reason WHERE id = :endpoint_id")


def endpoints(conn: Connection, tenant: str | None, name: str | None = None) -> Sequence[Row]:
    """The endpoints with their health and counts of undelivered deliveries, without removed ones."""
    return conn.execute(OVERVIEW, {"tenant": tenant, "name": name}).mappings().all()


def troubled(conn: Connection, now: datetime, late: datetime, limit: int) -> Sequence[Row]:
    """Endpoints that are disabled, fail, wait, or have a delivery due since before `late`, with what they are owed."""
    return conn.execute(TROUBLED, {"now": now, "late": late, "limit": limit}).mappings().all()


def state(conn: Connection, endpoint_id: int) -> str:
    """The endpoint's state, locked until the transaction ends."""
    return str(conn.execute(STATE, {"endpoint_id": endpoint_id}).scalar_one())


def turn_on(conn: Connection, endpoint_id: int) -> None:
    """Enables the endpoint."""
    conn.execute(TURN_ON, {"endpoint_id": endpoint_id})


def turn_off(conn: Connection, endpoint_id: int, reason: str) -> None:
    """Disables the endpoint: nothing more is sent to it, and new deliveries are planned as paused."""
    conn.execute(TURN_OFF, {"endpoint_id": endpoint_id, "reason": reason})
