"""Statements that list deliveries, the newest first: each endpoint's along an index, merged; a bounded number of each."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy import RowMapping as Row

MOST_SCANNED: Final = 5000  # deliveries that one page looks at, shared by the endpoints,
LEAST_OF_EACH: Final = 50  # though so many of each endpoint
FEW: Final = 5000  # in one state: all of them are looked up

# Of each endpoint as many as the page has.
ALL = text("""
    SELECT each.id FROM unnest(CAST(:endpoints AS int[])) AS wanted (endpoint_id) CROSS JOIN LATERAL (
      SELECT id FROM delivery_search WHERE endpoint_id = wanted.endpoint_id AND id < :before
      ORDER BY endpoint_id DESC, id DESC LIMIT :limit) AS each
    ORDER BY id DESC LIMIT :limit""")

# Those that were looked at of an endpoint end somewhere; what is older than where the first of them ends is for the next page.
SEARCHED = text("""
    WITH scanned AS MATERIALIZED (
      SELECT wanted.endpoint_id, each.* FROM unnest(CAST(:endpoints AS int[])) AS wanted (endpoint_id) CROSS JOIN LATERAL (
        SELECT delivery.id, delivery.created_at, delivery.state FROM delivery_search
        JOIN delivery ON delivery.id = delivery_search.id
        WHERE delivery_search.endpoint_id = wanted.endpoint_id AND delivery_search.id < :before
        ORDER BY delivery_search.endpoint_id DESC, delivery_search.id DESC LIMIT :most) AS each),
    horizon AS MATERIALIZED (
      SELECT created_at, id FROM (
        SELECT created_at, id, row_number() OVER (PARTITION BY endpoint_id ORDER BY id DESC) AS n FROM scanned) AS numbered
      WHERE n = :most ORDER BY id DESC LIMIT 1)
    SELECT true AS is_end, id, created_at FROM horizon
    UNION ALL (
      SELECT false, id, created_at FROM scanned
      WHERE state = :state AND NOT EXISTS (SELECT FROM horizon WHERE scanned.id < horizon.id) ORDER BY id DESC LIMIT :limit)""")

# Paused ones, and those that came to no good end, have an index in order of time: of each endpoint as many as the page has.
_TIMED: Final = """
    SELECT each.id, each.created_at FROM unnest(CAST(:endpoints AS int[])) AS wanted (endpoint_id) CROSS JOIN LATERAL (
      SELECT id, created_at FROM delivery
      WHERE delivery.endpoint_id = wanted.endpoint_id AND state = '{state}'
        AND (created_at, id) < (CAST(:created_at AS timestamptz), :before)
      ORDER BY created_at DESC, id DESC LIMIT :limit) AS each
    ORDER BY created_at DESC, id DESC LIMIT :limit"""
TIMED = {state: text(_TIMED.format(state=state)) for state in ("paused", "dead", "discarded")}

# From an index of only the pending, or the leased, ones of each endpoint.
_FEW: Final = """
    SELECT each.id FROM unnest(CAST(:endpoints AS int[])) AS wanted (endpoint_id) CROSS JOIN LATERAL (
      SELECT id FROM delivery WHERE delivery.endpoint_id = wanted.endpoint_id AND state = '{state}' LIMIT :most) AS each"""
_STATES: Final = ("pending", "leased")
COUNT_FEW = {
    each: text(f"SELECT count(*) FROM ({_FEW.format(state=each)} LIMIT :most) AS found")  # noqa: S608 - constants
    for each in _STATES
}
FEW_OF = {each: text(_FEW.format(state=each) + " WHERE each.id < :before ORDER BY 1 DESC LIMIT :limit") for each in _STATES}

ROWS = text("""
    SELECT delivery.id, endpoint.name AS endpoint, chain.subject, delivery.chain_id, delivery.seq, attributes,
           delivery.state, attempts, delivery.created_at, next_attempt_at, settled_at, error, delivery.size
    FROM delivery LEFT JOIN endpoint ON endpoint.id = endpoint_id LEFT JOIN chain ON chain.chain_id = delivery.chain_id
    LEFT JOIN content ON content.chain_id = delivery.chain_id AND content.seq = delivery.seq
    WHERE delivery.id = ANY(CAST(:ids AS bigint[])) AND delivery.tenant = :tenant ORDER BY delivery.id DESC""")

OF_EVENT = text("""
    SELECT id FROM delivery WHERE chain_id = :chain AND seq = :seq AND tenant = :tenant ORDER BY id LIMIT :limit""")

BEHIND = text("""
    SELECT greatest(0, coalesce((SELECT max(id) FROM delivery), 0)
      - coalesce((SELECT upto FROM delivery_search_progress), 0))""")


class Scanned(NamedTuple):
    """The ids of a page, the newest first, with when they were created; and where the search has stopped, if it did."""

    ids: Sequence[tuple[int, datetime | None]]
    stopped: tuple[int, datetime] | None = None


def page(conn: Connection, endpoints: Sequence[int], state: str | None, key: Mapping[str, Any], limit: int) -> Scanned:
    """The first `limit` of the endpoints' deliveries after `key`, in this state or in any."""
    given = {**key, "endpoints": list(endpoints), "limit": limit}
    if state is None:
        return Scanned([(row[0], None) for row in conn.execute(ALL, given)])
    if state in _STATES and _are_few(conn, state, endpoints):
        found = conn.execute(FEW_OF[state], {**given, "most": FEW + 1})
        return Scanned([(row[0], None) for row in found])
    if state in TIMED:
        return Scanned([(row.id, row.created_at) for row in conn.execute(TIMED[state], given)])
    newest = _searched(conn, {**given, "state": state, "most": limit})  # enough, if nearly all are in this state
    if len(newest.ids) == limit or newest.stopped is None:
        return newest
    most = max(LEAST_OF_EACH, MOST_SCANNED // max(1, len(endpoints)))
    return _searched(conn, {**given, "state": state, "most": most})


def _searched(conn: Connection, given: Mapping[str, Any]) -> Scanned:
    rows = conn.execute(SEARCHED, given).all()
    ends = [(row.id, row.created_at) for row in rows if row.is_end]
    return Scanned([(row.id, row.created_at) for row in rows if not row.is_end], ends[0] if ends else None)


def _are_few(conn: Connection, state: str, endpoints: Sequence[int]) -> bool:
    return int(conn.execute(COUNT_FEW[state], {"endpoints": list(endpoints), "most": FEW + 1}).scalar_one()) <= FEW


def rows(conn: Connection, tenant: str, ids: Sequence[int]) -> dict[int, Row]:
    """Those of the deliveries that are the tenant's, by id."""
    return {row["id"]: row for row in conn.execute(ROWS, {"ids": list(ids), "tenant": tenant}).mappings()}


def of_event(conn: Connection, tenant: str, chain: UUID, seq: int, limit: int) -> list[int]:
    """The first deliveries of an entry."""
    return list(conn.execute(OF_EVENT, {"chain": chain, "seq": seq, "tenant": tenant, "limit": limit}).scalars())


def behind(conn: Connection) -> int:
    """About how many deliveries are not in the index yet."""
    return int(conn.execute(BEHIND).scalar_one())
