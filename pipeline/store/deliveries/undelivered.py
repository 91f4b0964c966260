"""Statements on undelivered deliveries: pages of them for one endpoint, and planned tries that are moved up."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy import RowMapping as Row

from pipeline.store.deliveries import notify

_UNDELIVERED = """
    SELECT delivery.id, endpoint.name AS endpoint, chain.subject, delivery.chain_id, delivery.seq, attributes, delivery.state,
           delivery.attempts, delivery.created_at, next_attempt_at, settled_at, delivery.error, endpoint.reason AS disabled,
           dead_letter.id AS dead_letter, dead_letter.reason AS buried
    FROM ({page}) AS delivery JOIN endpoint ON endpoint.id = endpoint_id
    LEFT JOIN chain ON chain.chain_id = delivery.chain_id
    LEFT JOIN content ON content.chain_id = delivery.chain_id AND content.seq = delivery.seq
    LEFT JOIN dead_letter ON dead_letter.delivery_id = delivery.id AND dead_letter.state = 'open'
    ORDER BY {order}"""
_RANGE = """(CAST(:since AS timestamptz) IS NULL OR created_at >= :since)
      AND (CAST(:until AS timestamptz) IS NULL OR created_at < :until)"""

# In pages along an index of only such deliveries of one endpoint, whatever else was delivered: a page of each state, merged.
_ENDED = f"""
      (SELECT * FROM delivery WHERE endpoint_id = :endpoint_id AND state = '{{}}' AND {_RANGE}
       AND (created_at, id) > (:after, :after_id) ORDER BY created_at, id LIMIT :limit)"""  # noqa: S608 - constants
_BOTH = f"""
    SELECT * FROM ({_ENDED.format("dead")} UNION ALL {_ENDED.format("discarded")}) AS ended
    ORDER BY created_at, id LIMIT :limit"""  # noqa: S608 - constants
ENDED = text(_UNDELIVERED.format(page=_BOTH, order="delivery.created_at, delivery.id"))

# From an index of the endpoint's deliveries in each state. Materialized, or a page along the primary key, which holds every
# delivered one as well, would look cheaper.
_IN_STATE = "SELECT id FROM delivery WHERE endpoint_id = :endpoint_id AND state = '{}' AND {}"
UNSETTLED_IDS = text(f"""
    WITH unsettled AS MATERIALIZED (
      {_IN_STATE.format("pending", _RANGE)}
      UNION ALL {_IN_STATE.format("leased", _RANGE)}
      UNION ALL {_IN_STATE.format("paused", _RANGE)})
    SELECT id FROM unsettled WHERE id > :after ORDER BY id LIMIT :limit""")  # noqa: S608 - constants

# No EXISTS, which may become a hash of all such deliveries.
_ONE: Final = "(SELECT true FROM delivery WHERE endpoint_id = wanted.id AND state = '{}' LIMIT 1)"
LACKING = text(f"""
    SELECT id FROM unnest(CAST(:endpoint_ids AS int[])) AS wanted (id)
    WHERE {" OR ".join(_ONE.format(state) for state in ("pending", "leased", "paused", "dead", "discarded"))}""")  # noqa: S608

_UNSETTLED = "SELECT * FROM delivery WHERE id = ANY(CAST(:ids AS bigint[])) AND state IN ('pending', 'leased', 'paused')"
UNSETTLED = text(_UNDELIVERED.format(page=_UNSETTLED, order="delivery.id"))

# Whatever their state is.
GIVEN = text(_UNDELIVERED.format(page="SELECT * FROM delivery WHERE id = ANY(CAST(:ids AS bigint[]))", order="delivery.id"))

_PLANNED = """
    endpoint_id = ANY(CAST(:endpoint_ids AS int[])) AND state = 'pending' AND next_attempt_at > :now
      AND (CAST(:ids AS bigint[]) IS NULL OR id = ANY(CAST(:ids AS bigint[])))"""

_COUNT_PLANNED = """
    SELECT endpoint_id, count(*), min(next_attempt_at), max(next_attempt_at), min(id), max(id)
    FROM delivery WHERE {planned} GROUP BY 1 ORDER BY 2 DESC, 1"""
COUNT_PLANNED = text(_COUNT_PLANNED.format(planned=_PLANNED))

_SAMPLE_PLANNED = "SELECT id FROM delivery WHERE {planned} ORDER BY id LIMIT :limit"
SAMPLE_PLANNED = text(_SAMPLE_PLANNED.format(planned=_PLANNED))

# By id, so that a delivery that fails meanwhile and is planned again is not moved up a second time.
_MOVE_UP = """
    WITH planned AS MATERIALIZED (
      SELECT id FROM delivery WHERE {planned} AND id > :after AND id <= :last
      ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED)
    UPDATE delivery SET next_attempt_at = :now FROM planned WHERE delivery.id = planned.id RETURNING delivery.id"""
MOVE_UP = text(_MOVE_UP.format(planned=_PLANNED))


@dataclass(frozen=True, slots=True)
class Range:
    """A range of times at which events were recorded: from `since` on, before `until`."""

    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class PlannedTries:
    """The planned tries of one endpoint: their number, the range of their times, and the range of their ids."""

    endpoint_id: int
    count: int
    earliest: datetime
    latest: datetime
    first: int
    last: int


def lacking(conn: Connection, endpoint_ids: Sequence[int]) -> set[int]:
    """Those of the endpoints that any event was not delivered to."""
    return set(conn.execute(LACKING, {"endpoint_ids": list(endpoint_ids)}).scalars())


def ended(conn: Connection, endpoint_id: int, when: Range, after: tuple[datetime, int], limit: int) -> Sequence[Row]:
    """The `limit` dead and discarded deliveries that follow `after`, a recording time and a delivery's id."""
    asked = {"since": when.since, "until": when.until, "after": after[0], "after_id": after[1]}
    return conn.execute(ENDED, {**asked, "endpoint_id": endpoint_id, "limit": limit}).mappings().all()


def unsettled_ids(conn: Connection, endpoint_id: int, when: Range, after: int, limit: int) -> Sequence[int]:
    """The `limit` lowest ids above `after` of the endpoint's unsettled deliveries. Reads all of those, but no settled one."""
    asked = {"since": when.since, "until": when.until, "endpoint_id": endpoint_id, "after": after, "limit": limit}
    return conn.execute(UNSETTLED_IDS, asked).scalars().all()


def unsettled(conn: Connection, ids: Sequence[int]) -> Sequence[Row]:
    """Those of these deliveries that are still unsettled, by id."""
    return conn.execute(UNSETTLED, {"ids": list(ids)}).mappings().all()


def given(conn: Connection, ids: Sequence[int]) -> Sequence[Row]:
    """These deliveries, by id."""
    return conn.execute(GIVEN, {"ids": list(ids)}).mappings().all()


def planned(conn: Connection, endpoint_ids: Sequence[int], ids: Sequence[int] | None, now: datetime) -> list[PlannedTries]:
    """The tries of these endpoints that are planned for later than `now`; `ids` restricts them."""
    asked = {"endpoint_ids": list(endpoint_ids), "ids": None if ids is None else list(ids), "now": now}
    return [PlannedTries(*row) for row in conn.execute(COUNT_PLANNED, asked)]


def sample_planned(
    conn: Connection, endpoint_ids: Sequence[int], ids: Sequence[int] | None, now: datetime, limit: int
) -> Sequence[int]:
    """The ids of `limit` of them."""
    asked = {"endpoint_ids": list(endpoint_ids), "ids": None if ids is None else list(ids), "now": now}
    return conn.execute(SAMPLE_PLANNED, {**asked, "limit": limit}).scalars().all()


def move_up(
    conn: Connection, endpoint_ids: Sequence[int], ids: Sequence[int] | None, now: datetime, span: tuple[int, int], limit: int
) -> list[int]:
    """Makes at most `limit` of those due at `now`, with ids above `span`'s first and up to its second; returns their ids.

    The COMMIT notifies the relays.
    """
    asked = {"endpoint_ids": list(endpoint_ids), "ids": None if ids is None else list(ids), "now": now}
    moved = list(conn.execute(MOVE_UP, {**asked, "after": span[0], "last": span[1], "limit": limit}).scalars())
    if moved:
        notify.send(conn)
    return sorted(moved)
