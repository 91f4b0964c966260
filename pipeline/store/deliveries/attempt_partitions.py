"""Statements on the partitions of the attempt log: one for each day, created in advance, dropped whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Connection, text

# A function that runs with its owner's rights, because a worker may not create tables. Skips partitions that exist.
MAKE = text("SELECT make_attempt_partitions(CAST(:first AS date), :days)")

# By name and not by parent, to find also those that were detached and not dropped.
PARTITIONS = text("""
    SELECT to_date(right(relname, 8), 'YYYYMMDD') AS day, pg_stat_get_live_tuples(pg_class.oid) AS rows,
           pg_total_relation_size(pg_class.oid) AS bytes,
           CASE WHEN inhrelid IS NULL THEN 'detached' WHEN inhdetachpending THEN 'detaching' ELSE 'attached' END AS state
    FROM pg_class LEFT JOIN pg_inherits ON inhrelid = pg_class.oid
    WHERE relnamespace = CAST('public' AS regnamespace) AND relkind = 'r' AND relname ~ '^attempt_[0-9]{8}$'
    ORDER BY day""")


@dataclass(frozen=True, slots=True)
class Partition:
    """The attempts of one day in UTC. The rows are an estimate."""

    day: date
    rows: int
    bytes: int
    state: str  # attached, detaching or detached

    @property
    def end(self) -> date:
        """The first day after it."""
        return self.day + timedelta(days=1)


def ensure(conn: Connection, first: date, days: int) -> int:
    """Creates the missing partitions of `days` days (1 to 32) from `first` on; returns how many.

    Waits for a lock for at most five seconds, then raises.
    """
    return int(conn.execute(MAKE, {"first": first, "days": days}).scalar_one())


def ensure_for(conn: Connection, moments: Sequence[datetime]) -> int:
    """Creates the missing partitions for attempts that began at these times; returns how many."""
    return sum(ensure(conn, day, 1) for day in sorted({moment.astimezone(UTC).date() for moment in moments}))


def partitions(conn: Connection) -> list[Partition]:
    """All partitions, oldest first."""
    return [Partition(*row) for row in conn.execute(PARTITIONS)]
