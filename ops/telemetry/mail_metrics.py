"""Counts the pulls of mailboxes."""

from ops.telemetry import table
from ops.telemetry.label_sets import KINDS_OF_MAILBOX, MAIL_LANES, MAIL_OUTCOMES
from ops.telemetry.metric_kinds import closed


def observe_pull(kind: str, outcome: str, seconds: float) -> None:
    """Count one batch of a mailbox."""
    kind = closed(kind, KINDS_OF_MAILBOX)
    table.PULLS.labels(kind, closed(outcome, MAIL_OUTCOMES)).inc()
    table.PULL_SECONDS.labels(kind).observe(seconds)
    if outcome in ("done", "more"):
        table.LAST_SUCCESS.labels("mail").set_to_current_time()


def observe_mails(kind: str, lane: str, fetched: int, missing: int) -> None:
    """Count the mails of one pull."""
    kind = closed(kind, KINDS_OF_MAILBOX)
    table.FETCHED.labels(kind, closed(lane, MAIL_LANES)).inc(fetched)
    table.MISSING.labels(kind).inc(missing)
