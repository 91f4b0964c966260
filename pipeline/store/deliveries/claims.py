"""Statements that claim what is due, endpoint by endpoint, and take back what was claimed by who is gone."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import starmap
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, text

from pipeline.store.deliveries.endpoint_health import health_of
from schemas.allowance import Allowance, Standing
from schemas.delivery import Claim
from schemas.endpoint import DEFAULT_MAX_IN_FLIGHT

# A lease that a crash of Postgres forgets is a delivery that is due again: nothing to wait for the disk for.
FORGETTABLE = text("SET LOCAL synchronous_commit = off")

# A loose index scan: one step for each endpoint and lane in which something is pending, whatever stands behind it and however
# much has been delivered, and two for the endpoint itself. 20 microseconds an endpoint, so it is asked for in pages; who knows
# which endpoints to look at asks for those alone. Joins are subqueries with a limit, which never become scans of a whole table.
# Tells what `room.wanted` would find: that nothing can be claimed before the endpoint's wait, probe or next token.
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

# One round trip for three: it makes the transaction forgettable too, and counts all leases up to a bound.
# Each number from an index that holds only what is leased, or only what is pending, in the order that is asked for.
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

# Stops at the bound, and reads the index of leased rows alone, so it costs the same whatever the table holds.
COUNT_LEASED = text("SELECT count(*) FROM (SELECT FROM delivery WHERE state = 'leased' LIMIT :at_most) AS leased")

# One statement, and rows that another relay holds are skipped, so that no two relays get the same row. Materialized, because
# a plan that ran the inner query twice would lock twice as many. Forgettable by itself, for it mostly is a transaction alone.
CLAIM = text("""
    WITH forgettable AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
    due AS MATERIALIZED (
      SELECT oldest.id FROM forgettable
      CROSS JOIN unnest(CAST(:ids AS int[]), CAST(:lanes AS smallint[]), CAST(:rooms AS int[]))
        AS wanted (endpoint_id, lane, room)
      CROSS JOIN LATERAL (
        SELECT id FROM delivery
        WHERE endpoint_id = wanted.endpoint_id AND lane = wanted.lane AND state = 'pending' AND next_attempt_at <= :now
        ORDER BY next_attempt_at LIMIT wanted.room FOR UPDATE SKIP LOCKED) AS oldest)
    UPDATE delivery SET state = 'leased', next_attempt_at = NULL, lease = :lease, lease_until = :until
    FROM due WHERE delivery.id = due.id
    RETURNING delivery.id, endpoint_id, size""")

# Whatever became of the holder: killed, cut off, or its message lost by the broker.
EXPIRE_LEASES = text("""
    WITH ended AS MATERIALIZED (
      SELECT id FROM delivery WHERE state = 'leased' AND lease_until <= :now
      ORDER BY lease_until LIMIT :limit FOR UPDATE SKIP LOCKED)
    UPDATE delivery SET state = 'pending', next_attempt_at = :now, lease = NULL, lease_until = NULL
    FROM ended WHERE delivery.id = ended.id
    RETURNING endpoint_id""")

# For as long as the holder lives, however slow its endpoint is. Gives back what still is its own: the same delivery may be held
# under a later lease, by the same process even.
EXTEND_LEASES = text("""
    UPDATE delivery SET lease_until = :until
    FROM unnest(CAST(:ids AS bigint[]), CAST(:leases AS uuid[])) AS held (id, lease)
    WHERE delivery.id = held.id AND delivery.lease = held.lease
    RETURNING delivery.id, delivery.lease""")


class Due(NamedTuple):
    """When something of an endpoint can be claimed; `held` when it was planned for an earlier time."""

    at: datetime
    held: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """What can be claimed when, of each endpoint that is active, up to the endpoint `through`; None when there are no more."""

    dues: Mapping[int, Due]
    through: int | None


_ALL: Final = 1_000_000_000
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


def forgettable(conn: Connection) -> None:
    """Lets this transaction's COMMIT not wait for the disk: for leases, which may be forgotten, and nothing else."""
    conn.execute(FORGETTABLE)


def survey(conn: Connection) -> dict[int, datetime]:
    """Every endpoint that something is planned for, and when the first of it is due, which may be past."""
    rows = conn.execute(SURVEY, {"after": 0, "limit": _ALL})
    return {row.endpoint_id: row.planned for row in rows if row.planned is not None}


def survey_page(conn: Connection, after: int, limit: int) -> Page:
    """The next `limit` endpoints with ids above `after` that something is planned for."""
    rows = conn.execute(SURVEY, {"after": after, "limit": limit}).all()
    dues = {row.endpoint_id: _due(row) for row in rows if row.planned is not None and row.active}
    return Page(dues, rows[-1].endpoint_id if len(rows) == limit else None)


def look(conn: Connection, endpoint_ids: Collection[int], at_most: int = 0) -> tuple[list[Standing], int]:
    """How those of the endpoints that there are stand now, in no order; and how many leases there are, counted up to `at_most`.

    This transaction's COMMIT does not wait for the disk, as with `forgettable`.
    """
    rows = conn.execute(LOOK, {"ids": list(endpoint_ids), "at_most": at_most}).all()
    return [_standing(row) for row in rows], rows[0].altogether if rows else 0


def leased(conn: Connection, at_most: int) -> int:
    """How many deliveries are leased, counted up to `at_most`."""
    return int(conn.execute(COUNT_LEASED, {"at_most": at_most}).scalar_one())


def claim(conn: Connection, rooms: Mapping[int, Allowance], lease: UUID, now: datetime, until: datetime) -> list[Claim]:
    """Puts what has been due for longest in each lane under `lease`, as much as there is room, in the order of the ids.

    The COMMIT does not wait for the disk, as with `forgettable`.
    """
    lanes = [(each, lane, room) for each, one in rooms.items() for lane, room in ((0, one.first), (1, one.again)) if room]
    if not lanes:
        return []
    ids, numbers, limits = (list(column) for column in zip(*lanes, strict=True))
    asked = {"ids": ids, "lanes": numbers, "rooms": limits, "lease": lease, "now": now, "until": until}
    return sorted(starmap(Claim, conn.execute(CLAIM, asked)), key=lambda claimed: claimed.id)


def expire_leases(conn: Connection, now: datetime, limit: int) -> list[int]:
    """Makes at most `limit` deliveries whose lease has ended due at once; returns the endpoint of each."""
    return list(conn.execute(EXPIRE_LEASES, {"now": now, "limit": limit}).scalars())


def extend(conn: Connection, held: Sequence[tuple[int, UUID]], until: datetime) -> set[tuple[int, UUID]]:
    """Lets the leases that still hold last until `until`; returns them, each with its delivery's id."""
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
