"""The collector: reads the backlog of the whole system into the gauges of one elected process.

The elected process holds an advisory lock of Postgres, on a connection kept for it. The others show none of these series. If
the elected process cannot read, it shows its last figures, and `collector_up` says that they are old.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from ops.runtime.db import make_engine
from ops.telemetry import mail_metrics, metrics
from pipeline.store.admin import counts
from pipeline.store.deliveries import endpoint_health
from pipeline.store.mail import mailbox_overview

SECONDS: Final = 15.0  # between two readings
_STATEMENT_SECONDS: Final = 5.0
_LAG: Final = timedelta(seconds=90)  # after its timestamp, a decision is committed or never will be
_LATELY: Final = timedelta(minutes=5)  # for which an endpoint is called degraded after a failure

Queues = Callable[[], Mapping[str, tuple[int, int] | None]]
"""Asks the broker: for each queue, the number of ready messages and of consumers; None for a queue that does not exist."""

_GAUGES: Final = (
    metrics.RETRIES_DUE,
    metrics.QUEUE_OLDEST_SECONDS,
    metrics.DESTINATIONS,
    mail_metrics.MAILBOXES,
    metrics.DEAD_LETTERS,
    metrics.DEAD_LETTER_OLDEST_SECONDS,
    metrics.QUEUE_MESSAGES,
    metrics.QUEUE_CONSUMERS,
    metrics.COLLECTOR_UP,
    metrics.COLLECTOR_LAST_SUCCESS,
)


class Collector:
    """Stands for election with every `turn`, until `close`. Not for several threads at once."""

    def __init__(self, database_url: str, queues: Queues, deliveries: str) -> None:
        """`deliveries` is the queue whose backlog waits in Postgres."""
        self._engine = make_engine(database_url, pool_size=1, statement_timeout=_STATEMENT_SECONDS)
        self._queues = queues
        self._deliveries = deliveries
        self._conn: Connection | None = None
        self._elected = False
        self._counted = datetime.now(UTC) - _LAG  # up to when decisions are counted

    def turn(self) -> None:
        """Read everything, if this process is elected. Raises what Postgres or the broker raises."""
        try:
            self._read_database()
        except Exception:
            self._lose_database()
            raise
        if self._elected:
            self._read_broker()

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
                gauge.clear()
            return
        self._show_deliveries(counts.pending(self._conn, now), now)
        _show_dead_letters(counts.open_dead_letters(self._conn), now)
        _show_endpoints(endpoint_health.destinations(self._conn, now, now - _LATELY))
        _show_mailboxes(mailbox_overview.states(self._conn))
        self._count_decisions(self._conn, now - _LAG)
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
            found = self._queues()
        except Exception:
            metrics.collected("broker", None)
            raise
        for queue, state in found.items():
            ready, consumers = state or (0, 0)
            metrics.QUEUE_MESSAGES.labels(queue, "ready").set(ready)
            metrics.QUEUE_CONSUMERS.labels(queue).set(consumers)
        metrics.collected("broker", datetime.now(UTC).timestamp())

    def _show_deliveries(self, pending: counts.Pending, now: datetime) -> None:
        metrics.RETRIES_DUE.labels("overdue").set(pending.overdue)
        metrics.RETRIES_DUE.labels("future").set(pending.future)
        metrics.QUEUE_OLDEST_SECONDS.labels(self._deliveries).set(_age(pending.oldest, now))

    def _count_decisions(self, conn: Connection, until: datetime) -> None:
        for result, count in counts.decisions(conn, self._counted, until).items():
            metrics.DEAD_LETTER_REPLAYS.labels(result).inc(count)
        self._counted = max(self._counted, until)


def _show_endpoints(found: Mapping[str, int]) -> None:
    for condition in metrics.DESTINATION_CONDITIONS:
        metrics.DESTINATIONS.labels(condition).set(found.get(condition, 0))


def _show_mailboxes(found: Mapping[str, int]) -> None:
    for condition in mail_metrics.MAILBOX_CONDITIONS:
        mail_metrics.MAILBOXES.labels(condition).set(found.get(condition, 0))


def _show_dead_letters(found: Sequence[counts.OpenDeadLetters], now: datetime) -> None:
    by_stage = {each.stage: each for each in found}
    for stage in metrics.STAGES:
        waiting = by_stage.get(stage)
        metrics.DEAD_LETTERS.labels(stage).set(waiting.count if waiting else 0)
        metrics.DEAD_LETTER_OLDEST_SECONDS.labels(stage).set(_age(waiting.oldest if waiting else None, now))


def _age(since: datetime | None, now: datetime) -> float:
    """Seconds since then; 0 when `since` is None or in the future."""
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
