"""Statements behind the gauges: what is due and since when, what was decided. Each reads an index that holds nothing else."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

# Held by one session at a time, for as long as that lives: only one process reads these figures. Its holder may ask again.
LEAD = text("SELECT pg_try_advisory_lock(24852988478448746)")
PENDING = text("""
    SELECT count(*) FILTER (WHERE next_attempt_at <= :now) AS overdue, count(*) FILTER (WHERE next_attempt_at > :now) AS future,
           min(next_attempt_at) AS oldest
    FROM delivery WHERE state = 'pending'""")

# A decision is dated before it commits, so the end of the span has to lie longer ago than a transaction may last.
DECISIONS = text("""
    SELECT state, count(*) FROM dead_letter WHERE state <> 'open' AND decided_at > :after AND decided_at <= :until
    GROUP BY state""")


@dataclass(frozen=True, slots=True)
class Pending:
    """Deliveries that wait for a try: how many are due, how many planned for later, and the earliest time among all."""

    overdue: int
    future: int
    oldest: datetime | None


def lead(conn: Connection) -> bool:
    """Whether this session is the one that reads the figures: it becomes it if no other is, and stays it while it lives."""
    return bool(conn.execute(LEAD).scalar_one())


def pending(conn: Connection, now: datetime) -> Pending:
    """The deliveries that wait."""
    return Pending(*conn.execute(PENDING, {"now": now}).one())


def decisions(conn: Connection, after: datetime, until: datetime) -> dict[str, int]:
    """How many dead letters were replayed and discarded in between."""
    return {row[0]: row[1] for row in conn.execute(DECISIONS, {"after": after, "until": until})}
