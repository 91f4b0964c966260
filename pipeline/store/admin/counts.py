"""Statements that count, for `waxseal status` and metrics: exact where that is cheap, else estimated and marked as such."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, TextClause, text

from pipeline.store.ledger import scan

SUMMED_BELOW = 16 * 1024 * 1024  # bytes of chains; they are summed every few seconds
EXACT_BELOW = 256 * 1024 * 1024  # bytes; a smaller table is counted in well under a second

DELIVERY_BYTES = text("SELECT pg_relation_size('delivery')")

COUNT_DELIVERIES = text("SELECT state, count(*) FROM delivery GROUP BY state")

# Each count uses an index of only the unfinished deliveries, so it does not depend on the size of the table.
COUNT_UNFINISHED = text("""
    SELECT 'pending', count(*) FROM delivery WHERE state = 'pending'
    UNION ALL SELECT 'leased', count(*) FROM delivery WHERE state = 'leased'
    UNION ALL SELECT 'dead', count(*) FROM delivery WHERE state = 'dead'
    UNION ALL SELECT 'paused', count(*) FROM delivery WHERE state = 'paused'""")
ESTIMATE_DELIVERIES = text("SELECT CAST(reltuples AS bigint) FROM pg_class WHERE oid = CAST('delivery' AS regclass)")

OLDEST_DUE = text("SELECT next_attempt_at FROM delivery WHERE state = 'pending' ORDER BY next_attempt_at LIMIT 1")

OPEN_DEAD_LETTERS = text(
    "SELECT stage, count(*) AS open, min(last_at) AS oldest FROM dead_letter WHERE state = 'open' GROUP BY stage"
)

LEDGER_BYTES = text(
    "SELECT sum(pg_total_relation_size(CAST(name AS regclass))) FROM unnest(ARRAY['chain', 'entry', 'content']) AS name"
)

DISABLED = text("""
    SELECT tenant.name || '/' || endpoint.name AS name, reason FROM endpoint JOIN tenant ON tenant.id = tenant_id
    WHERE state = 'disabled' ORDER BY 1""")


@dataclass(frozen=True, slots=True)
class DeliveryCounts:
    """Deliveries by state. If `estimated`, all finished ones are counted as delivered, approximately."""

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
    """The deliveries by state, and the earliest due time."""
    oldest: datetime | None = conn.execute(OLDEST_DUE).scalar()
    if conn.execute(DELIVERY_BYTES).scalar_one() < EXACT_BELOW:
        return DeliveryCounts(_counts(conn, COUNT_DELIVERIES), False, oldest)
    unfinished = _counts(conn, COUNT_UNFINISHED)
    everything = max(0, conn.execute(ESTIMATE_DELIVERIES).scalar_one())
    return DeliveryCounts({**unfinished, "delivered": max(0, everything - sum(unfinished.values()))}, True, oldest)


def open_dead_letters(conn: Connection) -> Sequence[OpenDeadLetters]:
    """The dead letters that await a decision, by stage."""
    return [OpenDeadLetters(*row) for row in conn.execute(OPEN_DEAD_LETTERS)]


def ledger_bytes(conn: Connection) -> int:
    """The ledger's size on disk in bytes, with its indexes."""
    return int(conn.execute(LEDGER_BYTES).scalar_one())


def disabled_endpoints(conn: Connection) -> dict[str, str]:
    """The disabled endpoints, and the reason for each."""
    return {row.name: row.reason for row in conn.execute(DISABLED)}


def _counts(conn: Connection, statement: TextClause) -> dict[str, int]:
    return {row[0]: row[1] for row in conn.execute(statement) if row[1]}


# One session at a time holds this lock, until it ends: only one process reads these figures. The holder can lock it again.
LEAD = text("SELECT pg_try_advisory_lock(24852988478448746)")


# From the index of pending deliveries alone. What an endpoint holds back itself (its breaker, its wait, its rate) does not
# count as late.
PENDING = text("""
    WITH waiting AS (
      SELECT endpoint_id, count(*) FILTER (WHERE next_attempt_at <= :now) AS overdue,
        count(*) FILTER (WHERE next_attempt_at > :now) AS future,
        min(next_attempt_at) FILTER (WHERE lane = 0) AS first, min(next_attempt_at) FILTER (WHERE lane = 1) AS again
      FROM delivery WHERE state = 'pending' GROUP BY endpoint_id)
    SELECT CAST(coalesce(sum(overdue), 0) AS bigint), CAST(coalesce(sum(future), 0) AS bigint), min(least(first, again)),
      min(first) FILTER (WHERE free), min(again) FILTER (WHERE free)
    FROM waiting LEFT JOIN LATERAL (
      SELECT breaker = 'closed' AND coalesce(not_before <= :now, true) AND coalesce(tokens >= 1, true) AS known
      FROM endpoint_health WHERE endpoint_id = waiting.endpoint_id LIMIT 1) AS health ON true
    CROSS JOIN LATERAL (SELECT coalesce(known, true) AS free) AS free""")

# At most as many rows as may be leased at once. A first try is in flight since it was planned: its lease is renewed, and taken
# again, for as long as nobody sends it.
OLDEST_LEASED = text("""
    SELECT min(CASE WHEN attempts = 0 THEN coalesce(age_from, created_at) ELSE lease_until - make_interval(secs => :lease) END)
    FROM delivery WHERE state = 'leased'""")

OLDEST_PULL = text("SELECT min(next_pull_at) FROM mailbox WHERE state = 'active' AND lease_owner IS NULL")

CHAIN_BYTES = text("SELECT pg_relation_size('chain')")
_ROWS_OF = "SELECT CAST(greatest(reltuples, 0) AS bigint) FROM pg_class WHERE oid = CAST('{}' AS regclass)"
ESTIMATE_ENTRIES = text(_ROWS_OF.format("entry"))
ESTIMATE_CHAINS = text(_ROWS_OF.format("chain"))

# Decisions are dated before they commit, so `until` must lie further back than the longest transaction takes.
DECISIONS = text("""
    SELECT state, count(*) FROM dead_letter WHERE state <> 'open' AND decided_at > :after AND decided_at <= :until
    GROUP BY state""")


@dataclass(frozen=True, slots=True)
class Pending:
    """Deliveries that wait for a try: the number due now, the number planned for later, and the earliest time of all.

    `first` and `again` are the earliest times of first and later tries at endpoints that could be sent to.
    """

    overdue: int
    future: int
    oldest: datetime | None
    first: datetime | None
    again: datetime | None


@dataclass(frozen=True, slots=True)
class LedgerSize:
    """The numbers of chains and of entries; about, if `estimated`."""

    chains: int
    entries: int
    estimated: bool


def lead(conn: Connection) -> bool:
    """Whether this session is the leader, which reads the figures. It becomes the leader if there is none, until it ends."""
    return bool(conn.execute(LEAD).scalar_one())


def pending(conn: Connection, now: datetime) -> Pending:
    """The deliveries that wait for a try."""
    return Pending(*conn.execute(PENDING, {"now": now}).one())


def oldest_leased(conn: Connection, lease: float) -> datetime | None:
    """Since when the oldest claimed delivery has waited to be settled. `lease`: the seconds of a lease."""
    oldest: datetime | None = conn.execute(OLDEST_LEASED, {"lease": lease}).scalar()
    return oldest


def oldest_pull(conn: Connection) -> datetime | None:
    """When the mailbox that waits longest is, or was, to be pulled."""
    oldest: datetime | None = conn.execute(OLDEST_PULL).scalar()
    return oldest


def entries(conn: Connection) -> int:
    """The number of entries, by the heads of their chains, or estimated when there are many chains."""
    return ledger_size(conn).entries


def ledger_size(conn: Connection) -> LedgerSize:
    """The numbers of chains and entries, by the heads of the chains, or estimated when there are many."""
    if conn.execute(CHAIN_BYTES).scalar_one() < SUMMED_BELOW:
        return LedgerSize(*scan.size(conn), estimated=False)
    chains, entries = (int(conn.execute(each).scalar_one()) for each in (ESTIMATE_CHAINS, ESTIMATE_ENTRIES))
    return LedgerSize(chains, entries, estimated=True)


def decisions(conn: Connection, after: datetime, until: datetime) -> dict[str, int]:
    """The numbers of dead letters replayed and discarded after `after`, up to `until`."""
    return {row[0]: row[1] for row in conn.execute(DECISIONS, {"after": after, "until": until})}


# Endpoint by endpoint, from an index of only the leased ones.
LEASED = text("SELECT count(*), min(lease_until) FILTER (WHERE lease_until < :now) FROM delivery WHERE state = 'leased'")


def leased(conn: Connection, now: datetime) -> tuple[int, datetime | None]:
    """How many deliveries are being sent, and since when the first whose lease has ended is to be claimed again."""
    row = conn.execute(LEASED, {"now": now}).one()
    return row[0], row[1]
