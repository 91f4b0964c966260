"""The collector: reads the backlog of the whole system into the gauges of one elected process.

The elected process holds an advisory lock of Postgres, on a connection kept for it. The others show none of these series. If
the elected process cannot read, it shows its last figures, and `collector_up` says that they are old.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from prometheus_client import Gauge
from sqlalchemy import Connection

from ops.runtime.db import make_engine
from ops.telemetry import archive_table, label_sets, ledger_table, metrics, table
from pipeline.store.admin import counts, server_facts, verifications
from pipeline.store.admin.verifications import LastVerification
from pipeline.store.deliveries import endpoint_health
from pipeline.store.ledger import ledger_claims
from pipeline.store.ledger.ledger_claims import KeptClaim
from pipeline.store.log import pending as log_pending
from pipeline.store.mail import mailbox_overview

_STATEMENT_SECONDS: Final = 5.0
_LAG: Final = timedelta(seconds=90)  # after its timestamp, a decision is committed or never will be
_LATELY: Final = timedelta(minutes=5)  # for which an endpoint is called degraded after a failure

Queues = Callable[[], Mapping[str, tuple[int, int] | None]]
"""Asks the broker: for each queue, the number of ready messages and of consumers; None for a queue that does not exist."""

_GAUGES: Final = (
    table.OLDEST_SECONDS,
    table.CHAIN_HEAD,
    table.CHAIN_VERIFIED,
    table.CHAIN_BROKEN,
    table.CHAIN_VERIFIED_AT,
    ledger_table.LEDGER_CLAIMS,
    ledger_table.LEDGER_CLAIMED_AT,
    archive_table.ARCHIVE_BEHIND,
    archive_table.ARCHIVE_FAILING,
    table.RETRIES_DUE,
    table.QUEUE_OLDEST_SECONDS,
    table.DESTINATIONS,
    table.MAILBOXES,
    table.DEAD_LETTERS,
    table.DEAD_LETTER_OLDEST_SECONDS,
    table.QUEUE_MESSAGES,
    table.QUEUE_CONSUMERS,
    table.COLLECTOR_UP,
    table.COLLECTOR_LAST_SUCCESS,
)
_WITHOUT_LABELS: Final = (
    table.CHAIN_VERIFIED_AT,
    ledger_table.LEDGER_CLAIMED_AT,
    archive_table.ARCHIVE_BEHIND,
    archive_table.ARCHIVE_FAILING,
)


Inbox = Callable[[], float]
"""Asks how many seconds a message that is published now would wait in the inbox, or that one has waited until now."""


@dataclass(frozen=True, slots=True)
class Broker:
    """How to ask the broker. `deliveries` is the queue whose backlog waits in Postgres, and `inbox` the one that is probed."""

    queues: Queues
    probe: Inbox
    deliveries: str
    inbox: str


class Collector:
    """Stands for election with every `turn`, until `close`. Not for several threads at once."""

    def __init__(self, database_url: str, broker: Broker, *, lease: float) -> None:
        """`lease`: the seconds of a lease on a delivery."""
        self._engine = make_engine(database_url, pool_size=1, statement_timeout=_STATEMENT_SECONDS)
        self._broker = broker
        self._lease = lease
        self._conn: Connection | None = None
        self._elected = False
        self._counted = datetime.now(UTC) - _LAG  # up to when decisions are counted

    def turn(self) -> None:
        """Read everything, if this process is elected. Raises what Postgres or the broker raises, after reading the other."""
        try:
            self._read_database()
        except Exception:
            self._lose_database()
            raise
        finally:
            if self._elected:
                try:
                    self._read_broker()
                finally:
                    self._read_inbox()

    def close(self) -> None:
        """Release the lock, so that another process can be elected."""
        self._disconnect()
        self._engine.dispose()

    def _read_database(self) -> None:
        if self._conn is None:
            self._conn = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        now = datetime.now(UTC)
        self._elected = counts.lead(self._conn)
        if not self._elected:
            self._counted = now - _LAG
            for gauge in _GAUGES:
                _clear(gauge)
            return
        self._show_deliveries(counts.pending(self._conn, now), now)
        table.OLDEST_SECONDS.labels("in_flight").set(_age(counts.oldest_leased(self._conn, self._lease), now))
        table.OLDEST_SECONDS.labels("mail").set(_age(counts.oldest_pull(self._conn), now))
        table.OLDEST_SECONDS.labels("sequencing").set(_age(log_pending.oldest(self._conn), now))
        _show_dead_letters(counts.open_dead_letters(self._conn), now)
        _show_endpoints(endpoint_health.destinations(self._conn, now, now - _LATELY))
        _show_mailboxes(mailbox_overview.states(self._conn))
        self._count_decisions(self._conn, now - _LAG)
        archiving = server_facts.archiving(self._conn)
        archive_table.ARCHIVE_BEHIND.set((archiving.behind or 0) if archiving.wanted else 0)
        archive_table.ARCHIVE_FAILING.set(archiving.wanted and archiving.failing)
        _show_claims(ledger_claims.kept(self._conn))
        _show_ledger(counts.entries(self._conn), verifications.last(self._conn))  # last: the rows of chains may be damaged
        metrics.collected("database", now.timestamp())

    def _lose_database(self) -> None:
        """Close the connection, and with it give up the lock. If it was held, the figures stay and are marked as old."""
        if self._elected:
            metrics.collected("database", None)
        self._disconnect()

    def _disconnect(self) -> None:
        if self._conn is not None:
            conn, self._conn = self._conn, None
            conn.invalidate()  # a session that holds a lock must not go back to the pool
            conn.close()

    def _read_broker(self) -> None:
        try:
            found = self._broker.queues()
        except Exception:
            metrics.collected("broker", None)
            raise
        for queue, state in found.items():
            ready, consumers = state or (0, 0)
            table.QUEUE_MESSAGES.labels(queue, "ready").set(ready)
            table.QUEUE_CONSUMERS.labels(queue).set(consumers)
        metrics.collected("broker", datetime.now(UTC).timestamp())

    def _read_inbox(self) -> None:
        try:
            waited = self._broker.probe()
        except Exception:
            metrics.collected("inbox", None)
            raise
        table.OLDEST_SECONDS.labels("inbox").set(waited)
        table.QUEUE_OLDEST_SECONDS.labels(self._broker.inbox).set(waited)
        metrics.collected("inbox", datetime.now(UTC).timestamp())

    def _show_deliveries(self, pending: counts.Pending, now: datetime) -> None:
        table.RETRIES_DUE.labels("overdue").set(pending.overdue)
        table.RETRIES_DUE.labels("future").set(pending.future)
        table.QUEUE_OLDEST_SECONDS.labels(self._broker.deliveries).set(_age(pending.oldest, now))
        table.OLDEST_SECONDS.labels("unclaimed").set(_age(pending.first, now))
        table.OLDEST_SECONDS.labels("retries").set(_age(pending.again, now))

    def _count_decisions(self, conn: Connection, until: datetime) -> None:
        for result, count in counts.decisions(conn, self._counted, until).items():
            table.DEAD_LETTER_REPLAYS.labels(result).inc(count)
        self._counted = max(self._counted, until)


def _clear(gauge: Gauge) -> None:
    """Show no value. A gauge without labels cannot be without a value: it shows 0."""
    if gauge in _WITHOUT_LABELS:
        gauge.set(0)
    else:
        gauge.clear()


def _show_ledger(entries: int, verified: LastVerification | None) -> None:
    table.CHAIN_HEAD.labels("all").set(entries)
    table.CHAIN_VERIFIED.labels("all").set(verified.entries if verified else 0)
    table.CHAIN_BROKEN.labels("all").set(verified.faults if verified else 0)
    intact_at = verified.intact_at if verified else None
    table.CHAIN_VERIFIED_AT.set(intact_at.timestamp() if intact_at else 0)


def _show_claims(kept: Sequence[KeptClaim]) -> None:
    for word in label_sets.CLAIMS:
        ledger_table.LEDGER_CLAIMS.labels(word).set(sum(each.word == word for each in kept))
    ledger_table.LEDGER_CLAIMED_AT.set(min((each.checked_at.timestamp() for each in kept), default=0))


def _show_endpoints(found: Mapping[str, int]) -> None:
    for condition in label_sets.DESTINATION_CONDITIONS:
        table.DESTINATIONS.labels(condition).set(found.get(condition, 0))


def _show_mailboxes(found: Mapping[str, int]) -> None:
    for condition in label_sets.MAILBOX_CONDITIONS:
        table.MAILBOXES.labels(condition).set(found.get(condition, 0))


def _show_dead_letters(found: Sequence[counts.OpenDeadLetters], now: datetime) -> None:
    by_stage = {each.stage: each for each in found}
    table.OLDEST_SECONDS.labels("dead_letters").set(_age(min((each.oldest for each in found), default=None), now))
    for stage in label_sets.STAGES:
        waiting = by_stage.get(stage)
        table.DEAD_LETTERS.labels(stage).set(waiting.count if waiting else 0)
        table.DEAD_LETTER_OLDEST_SECONDS.labels(stage).set(_age(waiting.oldest if waiting else None, now))


def _age(since: datetime | None, now: datetime) -> float:
    """Seconds since then; 0 when `since` is None or in the future."""
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
