"""Statements on what cannot be sent because its endpoint is not active: kept as paused, or given up with the endpoint.

Only the endpoint's row decides, locked while it does: what a process remembers of it may be older than an operator's act.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from pipeline.store.admin import audit
from pipeline.store.deliveries.deliveries import Held, keys_of

RELAY: Final = "waxseal"  # in the audit, where nobody but a process did it
REMOVED: Final = "endpoint remove"  # the act in the audit

_GONE = """state = CASE WHEN gone THEN 'discarded' ELSE 'paused' END, next_attempt_at = NULL,
                        settled_at = CASE WHEN gone THEN CAST(:now AS timestamptz) END,
                        error = CASE WHEN gone THEN 'the endpoint was removed' ELSE error END"""

# What a disabled endpoint is owed is kept until somebody decides; what a removed one is owed, nobody is to get any more. An
# endpoint that somebody is just turning on or off is left for the next time.
SET_ASIDE = text(f"""
    WITH standing AS MATERIALIZED (
      SELECT id, tenant_id, name, transport, state = 'removed' AS gone FROM endpoint
      WHERE state <> 'active' AND (CAST(:ids AS int[]) IS NULL OR id = ANY(CAST(:ids AS int[])))
      FOR SHARE SKIP LOCKED),
    owed AS MATERIALIZED (
      SELECT pending.id, gone, tenant_id, name, transport FROM standing CROSS JOIN LATERAL (
        SELECT id FROM delivery WHERE endpoint_id = standing.id AND delivery.state = 'pending'
        ORDER BY lane, next_attempt_at LIMIT :limit FOR UPDATE SKIP LOCKED) AS pending
      LIMIT :limit)
    UPDATE delivery SET {_GONE}
    FROM owed JOIN tenant ON tenant.id = tenant_id WHERE delivery.id = owed.id
    RETURNING gone, tenant.name AS tenant, owed.name AS endpoint, transport""")  # noqa: S608 - put together from constants

# Of what a worker has in hand and does not send, because it believes the endpoint to be disabled or removed. If it is wrong,
# or somebody is just deciding, the delivery is due again.
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

COUNT_OWED = text("""
    SELECT endpoint_id, count(*) FROM delivery
    WHERE endpoint_id = ANY(CAST(:ids AS int[])) AND state IN ('pending', 'leased', 'paused') GROUP BY 1""")

# With the endpoint, in its transaction. What is just being claimed or settled is left to whoever has it locked: removals wait
# for no worker, and what becomes of it is seen to afterwards.
_GIVE_UP = """
    WITH owed AS MATERIALIZED (
      SELECT id FROM delivery WHERE endpoint_id = :endpoint_id AND state IN ({states})
      ORDER BY {order} LIMIT :limit FOR UPDATE {wait})
    UPDATE delivery SET state = 'discarded', next_attempt_at = NULL, lease = NULL, lease_until = NULL, settled_at = :now,
                        error = 'the endpoint was removed'
    FROM owed WHERE delivery.id = owed.id"""
GIVE_UP = text(_GIVE_UP.format(states="'pending', 'paused'", order="chain_id, seq", wait="SKIP LOCKED"))

# Before the endpoint comes back: what still holds a lease is not to be tried again in its name either.
GIVE_UP_ALL = text(_GIVE_UP.format(states="'pending', 'paused', 'leased'", order="id", wait=""))

# Planned as paused by who did not know yet, or kept by a version that did not give it up.
ABANDONED = text("""
    SELECT endpoint.id, tenant.name AS tenant, endpoint.name, transport FROM endpoint JOIN tenant ON tenant.id = tenant_id
    WHERE endpoint.state = 'removed' AND (
      SELECT true FROM delivery WHERE delivery.endpoint_id = endpoint.id AND delivery.state = 'paused'
      ORDER BY created_at, id LIMIT 1)
    LIMIT 1 FOR SHARE OF endpoint SKIP LOCKED""")


@dataclass(frozen=True, slots=True)
class Aside:
    """What became of deliveries: how many were paused, and how many discarded, by tenant, endpoint and transport."""

    paused: int = 0
    discarded: Mapping[tuple[str, str, str], int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Of both."""
        return self.paused + sum(self.discarded.values())


def set_aside(conn: Connection, now: datetime, limit: int, endpoint_ids: Collection[int] | None = None) -> Aside:
    """Pauses what is pending for endpoints that are disabled, and discards it for those that are removed.

    At most `limit` deliveries, of these endpoints or of all; what is discarded is noted in the audit.
    """
    asked = {"now": now, "limit": limit, "ids": None if endpoint_ids is None else list(endpoint_ids)}
    return _noted(conn, conn.execute(SET_ASIDE, asked).all(), now)


def set_held_aside(conn: Connection, held: Sequence[Held], due: datetime, now: datetime) -> Aside:
    """As `set_aside`, for deliveries under a lease that still holds; those whose endpoint is active are due again at `due`."""
    if not held:
        return Aside()
    rows = conn.execute(SET_HELD_ASIDE, {**keys_of(held), "due": due, "now": now}).all()
    return _noted(conn, [row for row in rows if not row.active], now)


def count_undelivered(conn: Connection, endpoint_ids: Collection[int]) -> dict[int, int]:
    """How many deliveries the endpoints are owed that are neither delivered nor given up."""
    return {row[0]: row[1] for row in conn.execute(COUNT_OWED, {"ids": list(endpoint_ids)})}


def give_up(conn: Connection, endpoint_id: int, now: datetime, *, leased: bool = False, limit: int | None = None) -> int:
    """Discards what a removed endpoint is owed; returns how much. With `leased`, also what somebody may be sending."""
    asked = {"endpoint_id": endpoint_id, "now": now, "limit": limit}
    return conn.execute(GIVE_UP_ALL if leased else GIVE_UP, asked).rowcount


def give_up_abandoned(conn: Connection, now: datetime, limit: int) -> Aside:
    """Discards what is still kept for one removed endpoint, `limit` deliveries at most, and notes it in the audit."""
    row = conn.execute(ABANDONED).one_or_none()
    count = 0 if row is None else give_up(conn, row.id, now, limit=limit)
    if row is None or not count:
        return Aside()
    note_removal(conn, RELAY, row.tenant, row.name, count, now)
    return Aside(0, {(row.tenant, row.name, row.transport): count})


def note_removal(conn: Connection, who: str, tenant: str, endpoint: str, count: int, now: datetime) -> None:
    """Notes how many deliveries were given up with an endpoint."""
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
