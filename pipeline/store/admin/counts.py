"""Statements that count, for `waxseal status`: exact where that is cheap, estimated and marked as such where it is not."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, TextClause, text

EXACT_BELOW = 256 * 1024 * 1024  # bytes of table that are counted in well under a second

DELIVERY_BYTES = text("SELECT pg_relation_size('delivery')")

COUNT_DELIVERIES = text("SELECT state, count(*) FROM delivery GROUP BY state")

# Each from an index of its own that holds only what is unfinished, whatever the size of the table.
COUNT_UNFINISHED = text("""
    SELECT 'pending', count(*) FROM delivery WHERE state = 'pending'
    UNION ALL SELECT 'leased', count(*) FROM delivery WHERE state = 'leased'
    UNION ALL SELECT 'dead', count(*) FROM delivery WHERE state = 'dead'
    UNION ALL SELECT 'paused', count(*) FROM delivery WHERE state = 'paused'""")
ESTIMATE_DELIVERIES = text("SELECT CAST(reltuples AS bigint) FROM pg_class WHERE oid = CAST('delivery' AS regclass)")

OLDEST_DUE = text("SELECT next_attempt_at FROM delivery WHERE state = 'pending' ORDER BY next_attempt_at LIMIT 1")

OPEN_LETTERS = text(
    "SELECT stage, count(*) AS open, min(last_at) AS oldest FROM dead_letter WHERE state = 'open' GROUP BY stage"
)

ON_BROKEN_CHAINS = text("""
    SELECT count(*) FROM dead_letter WHERE state = 'open' AND stage = 'append' AND reason = 'chain_broken'""")

LEDGER_BYTES = text(
    "SELECT sum(pg_total_relation_size(CAST(name AS regclass))) FROM unnest(ARRAY['chain', 'entry', 'content']) AS name"
)

DISABLED = text("""
    SELECT tenant.name || '/' || endpoint.name AS name, reason FROM endpoint JOIN tenant ON tenant.id = tenant_id
    WHERE state = 'disabled' ORDER BY 1""")


@dataclass(frozen=True, slots=True)
class DeliveryCounts:
    """Deliveries by state; when `estimated`, what is finished is counted together, roughly, as delivered."""

    by_state: dict[str, int]
    estimated: bool
    oldest_due: datetime | None


@dataclass(frozen=True, slots=True)
class OpenDeadLetters:
    """Open dead letters of one stage."""

    stage: str
    count: int
    oldest: datetime


def deliveries(conn: Connection) -> DeliveryCounts:
    """How many deliveries are in which state, and since when the next one is due."""
    oldest: datetime | None = conn.execute(OLDEST_DUE).scalar()
    if conn.execute(DELIVERY_BYTES).scalar_one() < EXACT_BELOW:
        return DeliveryCounts(_counts(conn, COUNT_DELIVERIES), False, oldest)
    unfinished = _counts(conn, COUNT_UNFINISHED)
    everything = max(0, conn.execute(ESTIMATE_DELIVERIES).scalar_one())
    return DeliveryCounts({**unfinished, "delivered": max(0, everything - sum(unfinished.values()))}, True, oldest)


def open_dead_letters(conn: Connection) -> Sequence[OpenDeadLetters]:
    """The dead letters that wait for somebody, by stage."""
    return [OpenDeadLetters(*row) for row in conn.execute(OPEN_LETTERS)]


def on_broken_chains(conn: Connection) -> int:
    """How many messages are set aside because the head and the entries of their chain disagree."""
    return int(conn.execute(ON_BROKEN_CHAINS).scalar_one())


def ledger_bytes(conn: Connection) -> int:
    """What the ledger takes on disk, with its indexes."""
    return int(conn.execute(LEDGER_BYTES).scalar_one())


def disabled_endpoints(conn: Connection) -> dict[str, str]:
    """The endpoints that nothing is sent to, and why."""
    return {row.name: row.reason for row in conn.execute(DISABLED)}


def _counts(conn: Connection, statement: TextClause) -> dict[str, int]:
    return {row[0]: row[1] for row in conn.execute(statement) if row[1]}


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
