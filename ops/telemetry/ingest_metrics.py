"""Counts the batches of ingest."""

from collections.abc import Mapping

from ops.telemetry import metrics, table
from ops.telemetry.label_sets import SOURCES
from ops.telemetry.metric_kinds import closed


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
        table.DEDUPE_MESSAGES.labels(result).inc(sum(counts.values()))
        for source, count in counts.items():
            metrics.observe_ingested(source, outcome, count)
    table.BATCH_MESSAGES.observe(sum(new.values()) + sum(duplicates.values()))
    table.BATCH_SECONDS.observe(seconds)
    table.CHAIN_APPEND_SECONDS.observe(append)
    if lock_wait is not None:
        table.CHAIN_LOCK_SECONDS.observe(lock_wait)


def observe_conflict(source: str) -> None:
    """Count one duplicate whose content is not what was recorded."""
    table.CONFLICTS.labels(closed(source, SOURCES)).inc()
