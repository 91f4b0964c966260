"""The rows of the table of metrics that the eraser feeds."""

from ops.telemetry.label_sets import ERASER
from ops.telemetry.metric_kinds import counter, gauge

ERASED_ENTRIES = counter("erased_entries_total", "Entries whose content was erased by retention.", (ERASER,))
RETENTION_HELD = gauge("retention_held", "Is 1 while nothing is erased because a clock may have jumped, else 0.", (ERASER,))
RETENTION_BEHIND = gauge(
    "retention_behind_seconds", "Seconds by which the policy that is most behind is late, after the last run.", (ERASER,)
)
