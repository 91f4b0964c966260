"""Statements that count tries by endpoint, minute and outcome, behind those who deliver."""

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

#: Seconds: the bounds between the buckets of a minute's durations. Of what is just as long as a bound, the next bucket has it.
BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

COUNTED_TO = text("SELECT counted_to FROM stat_progress")
COUNTED = text("""
    INSERT INTO stat_progress (counted_to) VALUES (:upto)
    ON CONFLICT (single) DO UPDATE SET counted_to = greatest(stat_progress.counted_to, excluded.counted_to)""")

# Anew from the tries themselves, so that it may be done twice. Tries are added to a minute, never taken from it.
_BUCKETS: Final = ", ".join(f"count(*) FILTER (WHERE bucket = {n})" for n in range(len(BOUNDS) + 1))
COUNT = text(f"""
    INSERT INTO stat_minute (endpoint_id, minute, outcome, n, seconds, buckets)
    SELECT endpoint_id, date_trunc('minute', started_at), outcome, count(*), sum(CAST(seconds AS float8)), ARRAY[{_BUCKETS}]
    FROM (
      SELECT delivery_id, started_at, outcome, seconds,
        width_bucket(CAST(seconds AS float8), CAST(:bounds AS float8[])) AS bucket
      FROM attempt WHERE started_at >= :first AND started_at < :end) AS tried
    JOIN delivery ON delivery.id = tried.delivery_id
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (endpoint_id, minute, outcome) DO UPDATE
    SET n = excluded.n, seconds = excluded.seconds, buckets = excluded.buckets""")  # noqa: S608 - constants

PRUNES = [text(f"DELETE FROM {table} WHERE minute < :before") for table in ("stat_minute", "accepted_minute")]  # noqa: S608


def counted_to(conn: Connection) -> datetime | None:
    """The minute up to which tries have been counted; None: never."""
    found: datetime | None = conn.execute(COUNTED_TO).scalar()
    return found


def count(conn: Connection, first: datetime, end: datetime) -> None:
    """Counts the tries that began from `first` on and before `end`, which are whole minutes."""
    conn.execute(COUNT, {"first": first, "end": end, "bounds": list(BOUNDS)})


def reached(conn: Connection, upto: datetime) -> None:
    """Keeps up to which minute tries have been counted."""
    conn.execute(COUNTED, {"upto": upto})


def prune(conn: Connection, before: datetime) -> int:
    """Deletes the figures of minutes before then; how many."""
    return sum(conn.execute(each, {"before": before}).rowcount for each in PRUNES)
