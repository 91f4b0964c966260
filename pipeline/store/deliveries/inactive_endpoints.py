"""Statements on deliveries to endpoints that are not active: kept as paused, or discarded with a removed endpoint.

Only the endpoint's row, locked, decides which: a process's catalog may be older than an operator's act.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from pipeline.store.admin import audit
from pipeline.store.deliveries.deliveries import Held, keys_of
from schemas.access import By

RELAY: Final = "waxseal"  # who, in the audit, if a process acted by itself
REMOVED: Final = "endpoint remove"  # the act in the audit

_GONE = """state = CASE WHEN gone THEN 'discarded' ELSE 'paused' END, next_attempt_at = NULL,
                        settled_at = CASE WHEN gone THEN CAST(:now AS timestamptz) END,
                        error = CASE WHEN gone THEN 'the endpoint was removed' ELSE error END"""

# Deliveries to a disabled endpoint are kept until an operator decides; those to a removed one are discarded. An endpoint that
# is just being enabled or disabled is left for the next call.
SET_ASIDE = text(f"""
    WITH standing AS MATERIALIZED (
      SELECT id, tenant_id, name, transport, state = 'removed' AS gone FROM endpoint
      WHERE state <> 'active' AND (CAST(:ids AS int[]) IS NULL OR id = ANY(CAST(:ids AS int[])))
      FOR SHARE SKIP LOCKED),
    unsettled AS MATERIALIZED (
      SELECT pending.id, gone, tenant_id, name, transport FROM standing CROSS JOIN LATERAL (
        SELECT id FROM delivery WHERE endpoint_id = standing.id AND delivery.state = 'pending'
        ORDER BY lane, next_attempt_at LIMIT :limit FOR UPDATE SKIP LOCKED) AS pending
      LIMIT :limit)
    UPDATE delivery SET {_GONE}
    FROM unsettled JOIN tenant ON tenant.id = tenant_id WHERE delivery.id = unsettled.id
    RETURNING gone, tenant.name AS tenant, unsettled.name AS endpoint, transport""")  # noqa: S608 - put together from constants

# For deliveries that a worker holds and does not send, because its catalog says that the endpoint is disabled or removed. If
# that is outdated, or the endpoint's row is locked, the delivery is due again.
SET_HELD_ASIDE = text("""
    WITH held AS MATERIALIZED (
      SELECT delivery.id, delivery.lease, endpoint_id
      FROM unnest(CAST(:ids AS bigint[]), CAST(:leases AS uuid[])) AS asked (id, lease)
      JOIN delivery ON delivery.id = asked.id AND delivery.lease = asked.lease),
    standing AS MATERIALIZED (
      SELECT id, tenant_id, name, transport, state FROM endpoint WHERE id IN (SELECT endpoint_id FROM held)
      FOR SHARE SKIP LOCKED),
    decided AS MATERIALIZED (
      SELECT held.id, held.lease, tenant.name AS tenant, standing.name AS endpoint, transport,
             coalesce(standing.state = 'removed', false) AS gone, coalesce(standing.state, 'active') = 'active' AS active
      FROM held LEFT JOIN standing ON standing.id = held.endpoint_id LEFT JOIN tenant ON tenant.id = tenant_id)
    UPDATE delivery SET state = CASE WHEN active THEN 'pending' WHEN gone THEN 'discarded' ELSE 'paused' END,
                        next_attempt_at = CASE WHEN active THEN CAST(:due AS timestamptz) END,
                        settled_at = CASE WHEN gone THEN CAST(:now AS timestamptz) END,
                        error = CASE WHEN gone THEN 'the endpoint was removed' ELSE error END,
                        lease = NULL, lease_until = NULL
    FROM decided WHERE delivery.id = decided.id AND delivery.lease = decided.lease
    RETURNING gone, active, decided.tenant, endpoint, transport""")

# State by state: there is an index of the deliveries in each of these, by endpoint.
COUNT_UNDELIVERED = text("""
    SELECT endpoint_id, CAST(sum(number) AS bigint) FROM (
      SELECT endpoint_id, count(*) AS number FROM delivery
      WHERE endpoint_id = ANY(CAST(:ids AS int[])) AND state = 'pending' GROUP BY 1
      UNION ALL SELECT endpoint_id, count(*) FROM delivery
      WHERE endpoint_id = ANY(CAST(:ids AS int[])) AND state = 'leased' GROUP BY 1
      UNION ALL SELECT endpoint_id, count(*) FROM delivery
      WHERE endpoint_id = ANY(CAST(:ids AS int[])) AND state = 'paused' GROUP BY 1) AS undelivered
    GROUP BY 1""")

_GIVEN_UP = """
    UPDATE delivery SET state = 'discarded', next_attempt_at = NULL, lease = NULL, lease_until = NULL, settled_at = :now,
                        error = 'the endpoint was removed'
    FROM unsettled WHERE delivery.id = unsettled.id"""

# In the transaction that removes the endpoint. Skips deliveries that are just being claimed or settled, so that removals wait
# for no worker; those are handled afterwards.
GIVE_UP = text(f"""
    WITH pending AS MATERIALIZED (
      SELECT id FROM delivery WHERE endpoint_id = :endpoint_id AND state = 'pending'
      ORDER BY lane, next_attempt_at LIMIT :limit FOR UPDATE SKIP LOCKED),
    paused AS MATERIALIZED (
      SELECT id FROM delivery WHERE endpoint_id = :endpoint_id AND state = 'paused'
      ORDER BY created_at, id LIMIT :limit FOR UPDATE SKIP LOCKED),
    unsettled AS (SELECT id FROM pending UNION ALL SELECT id FROM paused LIMIT :limit)
    {_GIVEN_UP}""")  # noqa: S608 - put together from constants

# Before a removed endpoint is added again: its leased deliveries must not be retried to the new endpoint either.
GIVE_UP_ALL = text(f"""
    WITH unsettled AS MATERIALIZED (
      SELECT id FROM delivery WHERE id = ANY(ARRAY(
        SELECT id FROM delivery WHERE endpoint_id = :endpoint_id AND state = 'pending'
        UNION ALL SELECT id FROM delivery WHERE endpoint_id = :endpoint_id AND state = 'paused'
        UNION ALL SELECT id FROM delivery WHERE endpoint_id = :endpoint_id AND state = 'leased'))
      AND state IN ('pending', 'paused', 'leased')
      ORDER BY id LIMIT :limit FOR UPDATE)
    {_GIVEN_UP}""")  # noqa: S608 - put together from constants

# Planned as paused by a process with an older catalog, or kept by an earlier version, which did not give them up.
ABANDONED = text("""
    SELECT endpoint.id, tenant.name AS tenant, endpoint.name, transport FROM endpoint JOIN tenant ON tenant.id = tenant_id
    WHERE endpoint.state = 'removed' AND (
      SELECT true FROM delivery WHERE delivery.endpoint_id = endpoint.id AND delivery.state = 'paused'
      ORDER BY created_at, id LIMIT 1)
    LIMIT 1 FOR SHARE OF endpoint SKIP LOCKED""")


@dataclass(frozen=True, slots=True)
class Aside:
    """The number of deliveries paused, and the numbers discarded, by tenant, endpoint and transport."""

    paused: int = 0
    discarded: Mapping[tuple[str, str, str], int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """The number of both."""
        return self.paused + sum(self.discarded.values())


def set_aside(conn: Connection, now: datetime, limit: int, endpoint_ids: Collection[int] | None = None) -> Aside:
    """Pauses the pending deliveries of disabled endpoints, and discards those of removed ones.

    At most `limit` deliveries, of these endpoints or of all; discards are recorded in the audit.
    """
    asked = {"now": now, "limit": limit, "ids": None if endpoint_ids is None else list(endpoint_ids)}
    return _noted(conn, conn.execute(SET_ASIDE, asked).all(), now)


def set_held_aside(conn: Connection, held: Sequence[Held], due: datetime, now: datetime) -> Aside:
    """As `set_aside`, for leased deliveries whose lease still holds; if the endpoint is active, they are due again at `due`."""
    if not held:
        return Aside()
    rows = conn.execute(SET_HELD_ASIDE, {**keys_of(held), "due": due, "now": now}).all()
    return _noted(conn, [row for row in rows if not row.active], now)


def count_undelivered(conn: Connection, endpoint_ids: Collection[int]) -> dict[int, int]:
    """The number of pending, leased and paused deliveries of each endpoint that has any."""
    return {row[0]: row[1] for row in conn.execute(COUNT_UNDELIVERED, {"ids": list(endpoint_ids)})}


def give_up(conn: Connection, endpoint_id: int, now: datetime, *, leased: bool = False, limit: int | None = None) -> int:
    """Discards a removed endpoint's undelivered deliveries; returns how many. `leased`: also those that may be being sent."""
    asked = {"endpoint_id": endpoint_id, "now": now, "limit": limit}
    return conn.execute(GIVE_UP_ALL if leased else GIVE_UP, asked).rowcount


def give_up_abandoned(conn: Connection, now: datetime, limit: int) -> Aside:
    """Discards at most `limit` deliveries that are still kept for one removed endpoint, and records that in the audit."""
    row = conn.execute(ABANDONED).one_or_none()
    count = 0 if row is None else give_up(conn, row.id, now, limit=limit)
    if row is None or not count:
        return Aside()
    note_removal(conn, RELAY, row.tenant, row.name, count, now)
    return Aside(0, {(row.tenant, row.name, row.transport): count})


def note_removal(conn: Connection, who: By, tenant: str, endpoint: str, count: int, now: datetime) -> None:
    """Records in the audit how many deliveries were given up with an endpoint."""
    audit.record(conn, who, REMOVED, {"tenant": tenant, "endpoint": endpoint}, count, now, "done")


def _noted(conn: Connection, rows: Iterable[Row[Any]], now: datetime) -> Aside:
    paused, discarded = 0, dict[tuple[str, str, str], int]()
    for row in rows:
        if row.gone:
            key = row.tenant, row.endpoint, row.transport
            discarded[key] = discarded.get(key, 0) + 1
        else:
            paused += 1
    for (tenant, endpoint, _transport), count in discarded.items():
        note_removal(conn, RELAY, tenant, endpoint, count, now)
    return Aside(paused, discarded)
