"""The metrics of duplicates that differ, beside those in `ops.metrics`: the same rules."""

from ops.metric_kinds import closed, counter
from ops.metrics import SOURCES

CONFLICTS = counter(
    "dedupe_conflicts_total", "Duplicates whose content is not what was recorded under their identity.", source=SOURCES
)


def observe_conflict(source: str) -> None:
    """Count one duplicate whose content is not what was recorded."""
    CONFLICTS.labels(closed(source, SOURCES)).inc()
