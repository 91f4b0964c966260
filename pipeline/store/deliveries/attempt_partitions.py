"""Statements on the partitions of the attempt log: one for each day, made ahead, dropped whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Connection, text

# By a function that runs as its owner, because a worker may not create tables. Does nothing for days that are there.
MAKE = text("SELECT make_attempt_partitions(CAST(:first AS date), :days)")

# By name and not by parent, so that one that was detached and not dropped is found too.
PARTITIONS = text("""
    SELECT to_date(right(relname, 8), 'YYYYMMDD') AS day, pg_stat_get_live_tuples(pg_class.oid) AS rows,
           pg_total_relation_size(pg_class.oid) AS bytes,
           CASE WHEN inhrelid IS NULL THEN 'detached' WHEN inhdetachpending THEN 'detaching' ELSE 'attached' END AS state
    FROM pg_class LEFT JOIN pg_inherits ON inhrelid = pg_class.oid
    WHERE relnamespace = CAST('public' AS regnamespace) AND relkind = 'r' AND relname ~ '^attempt_[0-9]{8}$'
    ORDER BY day""")

# Whoever reads or writes attempts must not wait behind us while we wait.
IMPATIENT = text("SET lock_timeout = '3s'")

# Neither blocks who reads or writes attempts, and neither can be rolled back. Cut off between its two halves, the first is
# finished by the second.
DETACH = "ALTER TABLE public.attempt DETACH PARTITION public.{name} CONCURRENTLY"
FINALIZE = "ALTER TABLE public.attempt DETACH PARTITION public.{name} FINALIZE"
DROP = "DROP TABLE public.{name}"


@dataclass(frozen=True, slots=True)
class Partition:
    """The attempts of one day in UTC. The rows are an estimate."""

    day: date
    rows: int
    bytes: int
    state: str  # attached, detaching or detached

    @property
    def end(self) -> date:
        """The day that it holds nothing of any more."""
        return self.day + timedelta(days=1)

    @property
    def name(self) -> str:
        """Of the table."""
        return f"attempt_{self.day:%Y%m%d}"


def ensure(conn: Connection, first: date, days: int) -> int:
    """Makes the partitions that are missing of so many days (1 to 32) from `first` on; returns how many.

    Gives up after five seconds when it would have to wait for a lock.
    """
    return int(conn.execute(MAKE, {"first": first, "days": days}).scalar_one())


def ensure_for(conn: Connection, moments: Sequence[datetime]) -> int:
    """Makes the partitions that are missing for attempts that began at these moments."""
    return sum(ensure(conn, day, 1) for day in sorted({moment.astimezone(UTC).date() for moment in moments}))


def partitions(conn: Connection) -> list[Partition]:
    """All there are, oldest first."""
    return [Partition(*row) for row in conn.execute(PARTITIONS)]


def drop(conn: Connection, partition: Partition) -> None:
    """Drops a partition with all it holds. `conn` must commit by itself, and belong to the owner.

    What it began when it raises, because somebody reads the log for long, is finished when it is called again.
    """
    conn.execute(IMPATIENT)
    if partition.state != "detached":
        detach = FINALIZE if partition.state == "detaching" else DETACH
        conn.execute(text(detach.format(name=partition.name)))
    conn.execute(text(DROP.format(name=partition.name)))
