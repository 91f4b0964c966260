"""The functions that workers call with their facts; `ops.telemetry.table` defines the metrics."""

import platform
from collections.abc import Sequence
from functools import lru_cache
from importlib import metadata

from prometheus_client import Counter, Histogram

from ops.telemetry import table
from ops.telemetry.label_sets import (
    ACTOR_OUTCOMES,
    BLOB_CALLS,
    BURIALS,
    FAULTS,
    KINDS_OF_MAILBOX,
    OUTCOMES,
    REJECTIONS,
    RESOURCES,
    SOURCES,
    STAGES,
    STATUSES,
    TRANSPORTS,
)
from ops.telemetry.metric_kinds import closed, exemplify, observe_all


def observe_response(
    source: str, status: int, seconds: float, size: int, rejection: str | None = None, trace_id: str | None = None
) -> None:
    """Count an answer of the ingress: a 5xx as an error, a `rejection` as such; ingest counts what was answered with 202."""
    answered, took, held = _of_response(source, status)
    answered.inc()
    took.observe(seconds)
    held.observe(size)
    if trace_id is not None:
        exemplify(took, seconds, trace_id)
    if status >= 500:
        observe_ingested(source, "error")
    elif rejection is not None:
        observe_rejected(source, rejection)


@lru_cache(256)  # finding series by their labels takes as long as counting
def _of_response(source: str, status: int) -> tuple[Counter, Histogram, Histogram]:
    source = closed(source, SOURCES)
    return (
        table.INGRESS_RESPONSES.labels(closed(str(status), STATUSES)),
        table.INGEST_SECONDS.labels(source),
        table.INGEST_BYTES.labels(source),
    )


def observe_ingested(source: str, outcome: str, count: int = 1) -> None:
    """Count messages of one source as `accepted`, `duplicate` or `error`, after COMMIT."""
    _of_messages(source, outcome).inc(count)


@lru_cache(256)
def _of_messages(source: str, outcome: str) -> Counter:
    return table.INGEST_MESSAGES.labels(closed(source, SOURCES), closed(outcome, OUTCOMES))


def observe_rejected(source: str, reason: str) -> None:
    """Count one message that was not admitted."""
    source = closed(source, SOURCES)
    table.INGEST_MESSAGES.labels(source, "rejected").inc()
    table.INGEST_REJECTIONS.labels(source, closed(reason, REJECTIONS)).inc()


def observe_attempt(
    transport: str, fault: str, seconds: float, *, first_delay: float | None = None, reused: bool | None = None
) -> None:
    """Count one attempt; `fault` is `none` for a success, else `destination`, or `platform` for our own."""
    observe_attempts(transport, fault, [seconds], [] if first_delay is None else [first_delay], [reused])


def observe_attempts(
    transport: str, fault: str, seconds: Sequence[float], first_delays: Sequence[float], reused: Sequence[bool | None]
) -> None:
    """Count many attempts, as `observe_attempt` does: `first_delays` of those that were the first."""
    attempts, durations, delays = _of_attempts(transport, fault)
    attempts.inc(len(seconds))
    observe_all(durations, seconds)
    observe_all(delays, first_delays)
    for kept, connections in _REUSED.items():
        connections.inc(reused.count(kept))


def exemplify_attempt(transport: str, fault: str, seconds: float, end_to_end: float, trace_id: str) -> None:
    """Link an attempt that was counted with its trace."""
    _, durations, _ = _of_attempts(transport, fault)
    exemplify(durations, seconds, trace_id)
    if fault == "none":
        exemplify(_of_deliveries(transport)[1], end_to_end, trace_id)


def observe_delivered(transport: str, attempts: int, end_to_end: float) -> None:
    """Count a delivery that succeeded, after `attempts` and `end_to_end` seconds."""
    observe_all_delivered(transport, [attempts], [end_to_end])


def observe_all_delivered(transport: str, attempts: Sequence[int], end_to_end: Sequence[float]) -> None:
    """Count many deliveries that succeeded, as `observe_delivered` does."""
    delivered, journeys = _of_deliveries(transport)
    delivered.inc(len(attempts))
    observe_all(journeys, end_to_end)
    observe_all(table.ATTEMPTS_TO_SUCCESS, attempts)


# Looking a series up by its labels takes longer than counting in it.

_REUSED = {reused: table.HTTP_CONNECTIONS.labels(str(reused).lower()) for reused in (False, True)}


@lru_cache(64)
def _of_attempts(transport: str, fault: str) -> tuple[Counter, Histogram, Histogram]:
    transport, fault = closed(transport, TRANSPORTS), closed(fault, FAULTS)
    made = table.ATTEMPTS_MADE.labels(transport, "delivered" if fault == "none" else "failed", fault)
    return made, table.ATTEMPT_SECONDS.labels(transport), table.FIRST_ATTEMPT_SECONDS.labels(transport)


@lru_cache(64)
def _of_deliveries(transport: str) -> tuple[Counter, Histogram]:
    transport = closed(transport, TRANSPORTS)
    return table.DELIVERIES.labels(transport, "delivered"), table.END_TO_END_SECONDS.labels(transport)


def observe_cancelled(transport: str, count: int) -> None:
    """Count deliveries that were cancelled, because their endpoint was removed."""
    table.DELIVERIES.labels(closed(transport, TRANSPORTS), "cancelled").inc(count)


def observe_buried(stage: str, reason: str, transport: str | None = None) -> None:
    """Count a dead letter; with its `transport` if it was a delivery."""
    table.DEAD_LETTERS_MADE.labels(closed(stage, STAGES), closed(reason, BURIALS)).inc()
    if transport is not None:
        table.DELIVERIES.labels(closed(transport, TRANSPORTS), "dead_lettered").inc()


def observe_token_refresh(kind: str, outcome: str) -> None:
    """Count a request for an access token: `refreshed`, `refused` for good, or `failed` for now."""
    table.MAIL_TOKEN_REFRESHES.labels(closed(kind, (*KINDS_OF_MAILBOX, "other")), outcome).inc()


def declare_actor(queue: str, actor: str, pool: str) -> None:
    """Make the series of an actor exist from boot; only the modules that define actors know their names."""
    for outcome in ACTOR_OUTCOMES:
        table.ACTOR_MESSAGES.labels(queue, actor, outcome)
    table.ACTOR_SECONDS.labels(queue, actor)
    table.ACTOR_WAIT_SECONDS.labels(pool)
    table.ACTOR_IN_PROGRESS.labels(pool).set(0)


def observe_blob_call(operation: str, *, answered: bool) -> None:
    """Count a call to the blob store, by whether the store answered."""
    table.BLOB_OPERATIONS.labels(closed(operation, BLOB_CALLS), "ok" if answered else "away").inc()


def show_alarm(reason: str | None) -> None:
    """Show what the broker lacks, in its own words, while it blocks this process's publisher; None when it does not."""
    lacking = {resource for resource in RESOURCES if resource in (reason or "")} or ({RESOURCES[-1]} if reason else set())
    for resource in RESOURCES:
        table.BROKER_ALARM.labels(resource).set(resource in lacking)


def collected(collector: str, now: float | None) -> None:
    """Say whether a collector could read its figures: at `now` (seconds since 1970), or None if it could not."""
    table.COLLECTOR_UP.labels(collector).set(now is not None)
    if now is not None:
        table.COLLECTOR_LAST_SUCCESS.labels(collector).set(now)


def _version() -> str:
    try:
        return metadata.version("waxseal")
    except metadata.PackageNotFoundError:
        return "unknown"


table.BUILD_INFO.labels(_version(), platform.python_version()).set(1)
