"""The metrics of ingest's batches; the rules of `ops.telemetry.metrics` apply."""

from collections.abc import Mapping

from ops.telemetry import metrics
from ops.telemetry.metric_kinds import BATCH_SIZES, WORK_SECONDS, closed, counter, histogram
from ops.telemetry.metrics import SOURCES

BATCH_MESSAGES = histogram("dedupe_batch_messages", "Messages in one batch of the ingest worker.", BATCH_SIZES)
BATCH_SECONDS = histogram("dedupe_batch_duration_seconds", "One batch, from its first message to COMMIT.", WORK_SECONDS)
DEDUPE_MESSAGES = counter("dedupe_messages_total", "Messages looked up in the ledger, by result.", result=("new", "duplicate"))
CHAIN_APPEND_SECONDS = histogram("chain_append_duration_seconds", "Extending the chains of one batch.", WORK_SECONDS)
CHAIN_LOCK_SECONDS = histogram("chain_lock_wait_seconds", "Waiting for the heads of one batch.", WORK_SECONDS)
CONFLICTS = counter(
    "dedupe_conflicts_total", "Duplicates whose content is not what was recorded under their identity.", source=SOURCES
)


def observe_batch(
    new: Mapping[str, int],
    duplicates: Mapping[str, int],
    *,
    seconds: float,
    append: float,
    lock_wait: float | None = None,
) -> None:
    """Count a committed batch: how many messages of each source were new or already known, and the seconds it took."""
    for outcome, result, counts in (("accepted", "new", new), ("duplicate", "duplicate", duplicates)):
        DEDUPE_MESSAGES.labels(result).inc(sum(counts.values()))
        for source, count in counts.items():
            metrics.observe_ingested(source, outcome, count)
    BATCH_MESSAGES.observe(sum(new.values()) + sum(duplicates.values()))
    BATCH_SECONDS.observe(seconds)
    CHAIN_APPEND_SECONDS.observe(append)
    if lock_wait is not None:
        CHAIN_LOCK_SECONDS.observe(lock_wait)


def observe_conflict(source: str) -> None:
    """Count one duplicate whose content is not what was recorded."""
    CONFLICTS.labels(closed(source, SOURCES)).inc()
