"""The metrics of mailboxes; the rules of `ops.telemetry.metrics` apply: no tenant label here either."""

from ops.telemetry.metric_kinds import WORK_SECONDS, closed, counter, gauge, histogram
from schemas.config.mailbox_kinds import MAIL_KINDS
from schemas.mailbox import LANES, MAILBOX_STATES

OUTCOMES = ("done", "more", "busy", "away", "throttled", "refused", "fenced", "internal")
MAILBOX_CONDITIONS = ("failing", *MAILBOX_STATES)

PULLS = counter("mail_pulls_total", "Batches of mailboxes, by outcome.", kind=MAIL_KINDS, outcome=OUTCOMES)
PULL_SECONDS = histogram("mail_pull_duration_seconds", "One batch of one mailbox.", WORK_SECONDS, kind=MAIL_KINDS)
FETCHED = counter(
    "mail_fetched_total", "Mails fetched and published, by whether they were there before.", kind=MAIL_KINDS, lane=LANES
)
MISSING = counter("mail_missing_total", "Mails that a server listed but did not return.", kind=MAIL_KINDS)
RESYNCS = counter("mail_resyncs_total", "Times that a cursor was no longer valid.", kind=MAIL_KINDS)
REAUTHORIZATIONS = counter(
    "mail_reauthorizations_needed_total",
    "Mailboxes suspended because their credentials were refused.",
    kind=MAIL_KINDS,
)
IDLE_CONNECTIONS = gauge("mail_idle_connections", "Connections that watch folders of mailboxes by IDLE.")
MAILBOXES = gauge("mailboxes", "Mailboxes, by state: active, failing, paused or needs_reauthorization.", "state")
LAST_SUCCESS = gauge(
    "ingest_last_success_timestamp_seconds", "When a connector last read its source successfully.", "connector"
)


def observe_pull(kind: str, outcome: str, seconds: float) -> None:
    """Count one batch of a mailbox."""
    kind = closed(kind, MAIL_KINDS)
    PULLS.labels(kind, closed(outcome, OUTCOMES)).inc()
    PULL_SECONDS.labels(kind).observe(seconds)
    if outcome in ("done", "more"):
        LAST_SUCCESS.labels("mail").set_to_current_time()


def observe_mails(kind: str, lane: str, fetched: int, missing: int) -> None:
    """Count the mails of one pull."""
    kind = closed(kind, MAIL_KINDS)
    FETCHED.labels(kind, closed(lane, LANES)).inc(fetched)
    MISSING.labels(kind).inc(missing)
