"""Counts the batches of ingest."""

from collections.abc import Mapping

from ops.telemetry import metrics, table
from ops.telemetry.label_sets import SOURCES
from ops.telemetry.metric_kinds import closed, exemplify

_NEW = table.DEDUPE_MESSAGES.labels("new")
_KNOWN = table.DEDUPE_MESSAGES.labels("duplicate")


def observe_batch(
    new: Mapping[str, int],
    duplicates: Mapping[str, int],
    *,
    seconds: float,
    append: float,
    lock_wait: float | None = None,
    trace_id: str | None = None,
) -> None:
    """Count a committed batch: how many messages of each source were new or already known, and the seconds it took."""
    messages = 0
    for outcome, counter, counts in (("accepted", _NEW, new), ("duplicate", _KNOWN, duplicates)):
        if counts:
            counter.inc(size := sum(counts.values()))
            messages += size
            for source, count in counts.items():
                metrics.observe_ingested(source, outcome, count)
    table.BATCH_MESSAGES.observe(messages)
    table.BATCH_SECONDS.observe(seconds)
    table.CHAIN_APPEND_SECONDS.observe(append)
    if trace_id is not None:
        exemplify(table.BATCH_SECONDS, seconds, trace_id)
        exemplify(table.CHAIN_APPEND_SECONDS, append, trace_id)
    if lock_wait is not None:
        table.CHAIN_LOCK_SECONDS.observe(lock_wait)


def observe_conflict(source: str) -> None:
    """Count one duplicate whose content is not what was recorded."""
    table.CONFLICTS.labels(closed(source, SOURCES)).inc()
