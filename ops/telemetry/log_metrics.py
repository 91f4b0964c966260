"""Shows what the sealer does."""

from ops.telemetry import ledger_table
from ops.telemetry.label_sets import ANCHORS
from ops.telemetry.metric_kinds import closed


def sealed(seconds: float) -> None:
    """A checkpoint was published, `seconds` after its sealing began."""
    ledger_table.LOG_SEAL_SECONDS.observe(seconds)


def standing(refused: int, unsealed: float) -> None:
    """How many logs are refused just now, and for how many seconds the log that waits longest has had unsealed leaves."""
    ledger_table.LOG_REFUSED.set(refused)
    ledger_table.LOG_UNSEALED_SECONDS.set(unsealed)


def anchored(kind: str, at: float | None) -> None:
    """A place of this kind took a checkpoint, at this Unix time; None: it did not."""
    kind = closed(kind, ANCHORS)
    ledger_table.LOG_ANCHORS.labels(kind, "failed" if at is None else "anchored").inc()
    if at is not None:
        ledger_table.LOG_ANCHORED_AT.labels(kind).set(at)
