"""Statements that claim due deliveries, endpoint by endpoint, and reclaim those whose lease has ended."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import starmap
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, text

from pipeline.store.array_literals import plain
from pipeline.store.deliveries.endpoint_health import health_of
from pipeline.store.round_trip import fetched
from schemas.allowance import Allowance, Standing
from schemas.delivery import Claim
from schemas.endpoint import DEFAULT_MAX_IN_FLIGHT

# If a crash of Postgres loses a lease, the delivery is due again, so the COMMIT need not wait for the disk.
FORGETTABLE = text("SET LOCAL synchronous_commit = off")

# A loose index scan: one step for each endpoint and lane with pending deliveries, however many those or the delivered ones are,
# and two for the endpoint itself. It takes 20 µs an endpoint, so it runs in pages, and not for endpoints that are known to have
# something due. Joins are subqueries with a limit, which never become scans of a whole table. `held_until` agrees with
# `allowance.wanted`: nothing can be claimed before the endpoint's wait, probe or next token.
SURVEY = text("""
    WITH RECURSIVE waiting AS (
      (SELECT endpoint_id, lane, next_attempt_at, 1 AS number FROM delivery WHERE state = 'pending' AND endpoint_id > :after
       ORDER BY endpoint_id, lane, next_attempt_at LIMIT 1)
      UNION ALL
      SELECT following.*, number + 1 FROM waiting CROSS JOIN LATERAL (
        SELECT endpoint_id, lane, next_attempt_at FROM delivery
        WHERE state = 'pending' AND endpoint_id > waiting.endpoint_id
        ORDER BY endpoint_id, lane, next_attempt_at LIMIT 1) AS following
      WHERE number < :limit)
    SELECT waiting.endpoint_id, least(waiting.next_attempt_at, again.next_attempt_at) AS planned, active, number,
           greatest(health.not_before, health.probe_at,
                    CASE WHEN tokens < 1 THEN tokens_at + make_interval(secs => (1 - tokens) / rate_limit) END) AS held_until,
           coalesce(health.forced AND health.breaker = 'open', false) AS shut
    FROM waiting
    LEFT JOIN LATERAL (
      SELECT next_attempt_at FROM delivery
      WHERE endpoint_id = waiting.endpoint_id AND waiting.lane = 0 AND lane = 1 AND state = 'pending'
      ORDER BY next_attempt_at LIMIT 1) AS again ON true
    LEFT JOIN LATERAL (
      SELECT state = 'active' AS active, CAST(settings ->> 'rate_limit' AS double precision) AS rate_limit FROM endpoint
      WHERE id = waiting.endpoint_id LIMIT 1) AS endpoint ON true
    LEFT JOIN LATERAL (SELECT * FROM endpoint_health WHERE endpoint_id = waiting.endpoint_id LIMIT 1) AS health ON true
    ORDER BY number""")

# Saves two round trips: it also turns off the transaction's wait for the disk, and counts all leases up to a bound.
# Each number comes from an index that holds only the leased, or only the pending deliveries, in the order of the query.
LOOK = text("""
    WITH altogether AS MATERIALIZED (
      SELECT set_config('synchronous_commit', 'off', true), count(*) AS leased
      FROM (SELECT FROM delivery WHERE state = 'leased' LIMIT :at_most) AS leased)
    SELECT endpoint.id, state, settings -> 'max_in_flight' AS max_in_flight, settings -> 'rate_limit' AS rate_limit,
           altogether.leased AS altogether, leased.number, first.due AS first_due, again.due AS again_due, endpoint_health.*
    FROM altogether CROSS JOIN endpoint
    LEFT JOIN LATERAL (SELECT * FROM endpoint_health WHERE endpoint_id = endpoint.id LIMIT 1) AS endpoint_health ON true
    CROSS JOIN LATERAL (
      SELECT count(*) AS number FROM delivery WHERE endpoint_id = endpoint.id AND state = 'leased') AS leased
    LEFT JOIN LATERAL (
      SELECT next_attempt_at AS due FROM delivery WHERE endpoint_id = endpoint.id AND lane = 0 AND state = 'pending'
      ORDER BY next_attempt_at LIMIT 1) AS first ON true
    LEFT JOIN LATERAL (
      SELECT next_attempt_at AS due FROM delivery WHERE endpoint_id = endpoint.id AND lane = 1 AND state = 'pending'
      ORDER BY next_attempt_at LIMIT 1) AS again ON true
    WHERE endpoint.id = ANY(CAST(:ids AS int[]))""")

# Stops at the bound and reads only the index of leased rows, so its cost does not depend on the size of the table.
COUNT_LEASED = text("SELECT count(*) FROM (SELECT FROM delivery WHERE state = 'leased' LIMIT :at_most) AS leased")

# One statement that skips rows locked by another relay, so that no two relays get the same row. Materialized, because a plan
# that ran the inner query twice would lock twice as many. It sets synchronous_commit itself, as it mostly runs alone.
CLAIM = text("""
    WITH forgettable AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
    due AS MATERIALIZED (
      SELECT oldest.id FROM forgettable
      CROSS JOIN unnest(CAST(:ids AS int[]), CAST(:lanes AS smallint[]), CAST(:limits AS int[]))
        AS wanted (endpoint_id, lane, most)
      CROSS JOIN LATERAL (
        SELECT id FROM delivery
        WHERE endpoint_id = wanted.endpoint_id AND lane = wanted.lane AND state = 'pending' AND next_attempt_at <= :now
        ORDER BY next_attempt_at LIMIT wanted.most FOR UPDATE SKIP LOCKED) AS oldest)
    UPDATE delivery SET state = 'leased', next_attempt_at = NULL, lease = :lease, lease_until = :until
    FROM due WHERE delivery.id = due.id
    RETURNING delivery.id, endpoint_id, size""")

# The holder was killed or disconnected, or the broker lost its message.
EXPIRE_LEASES = text("""
    WITH ended AS MATERIALIZED (
      SELECT id FROM delivery WHERE state = 'leased' AND lease_until <= :now
      ORDER BY lease_until LIMIT :limit FOR UPDATE SKIP LOCKED)
    UPDATE delivery SET state = 'pending', next_attempt_at = :now, lease = NULL, lease_until = NULL
    FROM ended WHERE delivery.id = ended.id
    RETURNING endpoint_id""")

# For a claimant that does not know whether its claim was committed. Reads the index of leased rows.
RELEASE_LEASE = text("""
    UPDATE delivery SET state = 'pending', next_attempt_at = :now, lease = NULL, lease_until = NULL
    WHERE state = 'leased' AND lease = :lease
    RETURNING endpoint_id""")

# Repeated for as long as the holder lives, however slow its endpoint is. Returns the leases that still hold: a delivery may be
# under a later lease by now, even one of the same process.
EXTEND_LEASES = text("""
    UPDATE delivery SET lease_until = :until
    FROM unnest(CAST(:ids AS bigint[]), CAST(:leases AS uuid[])) AS held (id, lease)
    WHERE delivery.id = held.id AND delivery.lease = held.lease
    RETURNING delivery.id, delivery.lease""")


class Due(NamedTuple):
    """When a delivery of an endpoint can be claimed; `held` if it was due earlier, but is not allowed before."""

    at: datetime
    held: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """For each active endpoint up to the id `through`, when it can be claimed; `through` is None on the last page."""

    dues: Mapping[int, Due]
    through: int | None


_ALL: Final = 1_000_000_000
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


def forgettable(conn: Connection) -> None:
    """Makes this transaction's COMMIT not wait for the disk: only for leases, which may be lost."""
    conn.execute(FORGETTABLE)


def survey(conn: Connection) -> dict[int, datetime]:
    """Every endpoint with pending deliveries, and the earliest due time, which may be past."""
    rows = conn.execute(SURVEY, {"after": 0, "limit": _ALL})
    return {row.endpoint_id: row.planned for row in rows if row.planned is not None}


def survey_page(conn: Connection, after: int, limit: int) -> Page:
    """The next `limit` endpoints with ids above `after` and with pending deliveries."""
    rows = conn.execute(SURVEY, {"after": after, "limit": limit}).all()
    dues = {row.endpoint_id: _due(row) for row in rows if row.planned is not None and row.active}
    return Page(dues, rows[-1].endpoint_id if len(rows) == limit else None)


def look(conn: Connection, endpoint_ids: Collection[int], at_most: int = 0) -> tuple[list[Standing], int]:
    """The standings of those endpoints that exist, in no order; and the number of all leases, counted up to `at_most`.

    This transaction's COMMIT does not wait for the disk, as with `forgettable`.
    """
    rows = fetched(conn, LOOK, {"ids": plain(endpoint_ids), "at_most": at_most})
    return [_standing(row) for row in rows], rows[0].altogether if rows else 0


def leased(conn: Connection, at_most: int) -> int:
    """The number of leased deliveries, counted up to `at_most`."""
    return int(conn.execute(COUNT_LEASED, {"at_most": at_most}).scalar_one())


def claim(conn: Connection, granted: Mapping[int, Allowance], lease: UUID, now: datetime, until: datetime) -> list[Claim]:
    """Puts the deliveries due for longest in each lane under `lease`, as many as are granted; returns them by id.

    The COMMIT does not wait for the disk, as with `forgettable`.
    """
    lanes = [(each, lane, most) for each, one in granted.items() for lane, most in ((0, one.first), (1, one.again)) if most]
    if not lanes:
        return []
    ids, numbers, limits = (plain(column) for column in zip(*lanes, strict=True))
    asked = {"ids": ids, "lanes": numbers, "limits": limits, "lease": lease, "now": now, "until": until}
    return sorted(starmap(Claim, fetched(conn, CLAIM, asked)), key=lambda claimed: claimed.id)


def expire_leases(conn: Connection, now: datetime, limit: int) -> list[int]:
    """Makes at most `limit` deliveries whose lease has ended due at once; returns their endpoints, one for each."""
    return list(conn.execute(EXPIRE_LEASES, {"now": now, "limit": limit}).scalars())


def release_lease(conn: Connection, lease: UUID, now: datetime) -> list[int]:
    """Makes all deliveries under this lease due at once, untried; returns their endpoints, one for each."""
    return list(conn.execute(RELEASE_LEASE, {"now": now, "lease": lease}).scalars())


def extend(conn: Connection, held: Sequence[tuple[int, UUID]], until: datetime) -> set[tuple[int, UUID]]:
    """Extends the leases that still hold to `until`; returns them, each after its delivery's id."""
    ids, leases = [id_ for id_, _ in held], [lease for _, lease in held]
    return {(row[0], row[1]) for row in conn.execute(EXTEND_LEASES, {"ids": ids, "leases": leases, "until": until})}


def _due(row: Row[Any]) -> Due:
    if row.shut:
        return Due(_NEVER, held=True)
    if row.held_until is not None and row.held_until > row.planned:
        return Due(row.held_until, held=True)
    return Due(row.planned)


def _standing(row: Row[Any]) -> Standing:
    return Standing(
        endpoint_id=row.id,
        state=row.state,
        max_in_flight=row.max_in_flight or DEFAULT_MAX_IN_FLIGHT,
        rate_limit=row.rate_limit,
        leased=row.number,
        first_due=row.first_due,
        again_due=row.again_due,
        tokens=row.tokens,
        tokens_at=row.tokens_at,
        health=health_of(row),
    )
