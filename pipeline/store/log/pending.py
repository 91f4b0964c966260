"""Statements that find what has no position in its tenant's log yet."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, text

from pipeline.store.array_literals import plain, quoted
from pipeline.store.ledger.entries import BY_INDEX
from pipeline.store.round_trip import together

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

TENANTS = text("SELECT name FROM tenant UNION SELECT tenant FROM log")

# One look-up for each tenant. Above the floors, or each would go through what was deleted since the oldest snapshot that
# somebody holds: a backup may hold one for hours.
WAITING = text("""
    SELECT tenant.name FROM unnest(CAST(:names AS text[]), CAST(:floors AS bigint[])) AS tenant (name, floor)
    CROSS JOIN LATERAL (
      SELECT id FROM log_pending WHERE log_pending.tenant = tenant.name AND id > floor ORDER BY log_pending.tenant, id LIMIT 1
    ) AS earliest""")

# In this order. An id that the first sees was drawn by a transaction that had begun to write before the second looks, so its
# number is less than one that the second draws itself. A snapshot's xmax would not do: it is the number after that of the last
# transaction that has ended, and those that write just now may have greater ones. Nothing is drawn when no id is new.
LAST_ID = text("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM log_pending_id_seq")
WRITERS = text("""
    SELECT CAST(CAST(pg_snapshot_xmin(now) AS text) AS bigint),
      CAST(CAST(CASE WHEN is_called AND last_value <> :settled THEN pg_current_xact_id() ELSE pg_snapshot_xmax(now) END
                AS text) AS bigint)
    FROM pg_current_snapshot() AS now, log_pending_id_seq""")

# By tenant, the oldest by its id: ids are in the order of recording but for moments.
OLDEST = text("""
    SELECT min(earliest.at) FROM (SELECT name FROM tenant UNION SELECT tenant FROM log) AS tenant
    CROSS JOIN LATERAL (
      SELECT at FROM log_pending WHERE log_pending.tenant = tenant.name ORDER BY log_pending.tenant, id LIMIT 1) AS earliest""")

SIZES = text("""
    SELECT coalesce((SELECT sum(size) FROM log WHERE state = 'open'), 0),
      coalesce((SELECT sum(entries) FROM log_pending), 0)""")


class Writers(NamedTuple):
    """The last pending id that was drawn, the number of the oldest transaction that writes, and one that none of them has yet.

    `next` is not to be relied on when the last id is the one that is settled already.
    """

    last_id: int
    oldest: int
    next: int


def tenants(conn: Connection) -> list[str]:
    """The names of all tenants."""
    return list(conn.execute(TENANTS).scalars())


def waiting(conn: Connection, floors: Mapping[str, int]) -> list[str]:
    """Those tenants of `floors` that have something pending above their floor."""
    given = {"names": quoted(floors), "floors": plain(floors.values())}
    return [name for (name,) in together(conn, [(BY_INDEX, {}), (WAITING, given)])[1]]


def writers(conn: Connection, settled: int) -> Writers:
    """Which ids were drawn, and which transactions may still commit some of them. `settled`: nobody will commit that id."""
    ((last_id,),), ((oldest, next_),) = together(conn, [(LAST_ID, {}), (WRITERS, {"settled": settled})])
    return Writers(last_id, oldest, next_)


def oldest(conn: Connection) -> datetime | None:
    """When the entry was recorded that has waited longest for its position."""
    at: int | None = conn.execute(OLDEST).scalar()
    return None if at is None else _EPOCH + timedelta(microseconds=at)


def sizes(conn: Connection) -> Sequence[int]:
    """The numbers of leaves of all open logs, and of entries without a position."""
    return [int(each) for each in conn.execute(SIZES).one()]
