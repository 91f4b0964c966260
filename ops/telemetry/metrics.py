"""The metrics of the system, and the functions that workers call with their facts.

The assignments below are the table: name, meaning, buckets, and the closed set of each label. None has a tenant label,
because tenants are not a closed set. A message is counted in `ingest_messages_total` once, where its outcome is decided:
by the ingress when it rejects the message, else by the ingest worker after COMMIT.
"""

import platform
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import metadata
from typing import get_args

from prometheus_client import Counter, Histogram

from ops.telemetry.metric_kinds import (
    ATTEMPTS,
    JOURNEY_SECONDS,
    MESSAGE_BYTES,
    WORK_SECONDS,
    closed,
    counter,
    gauge,
    histogram,
    observe_all,
)
from pipeline import sources as source_kinds
from pipeline.errors import Rejected
from schemas.config import transports
from schemas.config.mailbox_kinds import MAIL_KINDS
from schemas.dead_letter import Stage
from schemas.endpoint_health import Breaker

# The last member of each set stands for every value that is not in it.
SOURCES = (*source_kinds.NAMES, *MAIL_KINDS, "unknown")
OUTCOMES = ("accepted", "duplicate", "rejected", "error")
TRANSPORTS = (*transports.TRANSPORTS, "other")
HARMFUL = ("too_slow", "crashed", "poison", "chain_broken")
REJECTIONS = (*Rejected.REASONS, "signature", "timestamp", "content_type", "rate_limited", *HARMFUL, "other")
STATUSES = ("200", "202", "400", "401", "404", "405", "408", "411", "413", "415", "429", "431", "501", "503", "500")
BURIALS = ("exhausted", "expired", "gone", "refused", "disabled", "internal", *REJECTIONS)
BREAKERS = get_args(Breaker)
DESTINATION_CONDITIONS = ("healthy", "degraded", "open", "paused")
FAULTS = ("none", "destination", "platform")
STAGES = get_args(Stage)
CONNECTIONS = ("consumer", "publisher", "actors", "other")
_WORKERS = ("ingress", "ingest", "relay", "deliver", "sequencer", "mail-pull", "mail-idle", "console")
PROCESSES = (*_WORKERS, "postgres", "rabbitmq", "other")

FIRST_ATTEMPT_SLO_SECONDS = 30.0  # 99 % of first attempts start within this; a bucket's bound, so that it can be measured

INGEST_MESSAGES = counter(
    "ingest_messages_total",
    "Messages whose outcome was decided, by outcome.",
    source=SOURCES,
    outcome=OUTCOMES,
)
INGEST_REJECTIONS = counter(
    "ingest_rejections_total", "Messages that were not admitted, by reason.", source=SOURCES, reason=REJECTIONS
)
INGEST_SECONDS = histogram(
    "ingest_duration_seconds", "From a message's arrival to the answer to its sender.", WORK_SECONDS, source=SOURCES
)
INGEST_BYTES = histogram("ingest_message_bytes", "Size of a message's body.", MESSAGE_BYTES, source=SOURCES)
INGRESS_RESPONSES = counter("ingress_responses_total", "Answers of the HTTP ingress, by status.", status=STATUSES)

ATTEMPTS_MADE = counter(
    "delivery_attempts_total",
    "Attempts to deliver, by outcome, and by whose fault a failure was.",
    transport=TRANSPORTS,
    outcome=("delivered", "failed"),
    fault=FAULTS,
)
ATTEMPT_SECONDS = histogram(
    "delivery_attempt_duration_seconds",
    "One attempt, from the look-up of the address to the end of the response.",
    WORK_SECONDS,
    transport=TRANSPORTS,
)
DELIVERIES = counter(
    "deliveries_total",
    "Deliveries that ended, by result; cancelled: their endpoint was removed before they were delivered.",
    transport=TRANSPORTS,
    result=("delivered", "dead_lettered", "cancelled"),
)
FIRST_ATTEMPT_SECONDS = histogram(
    "delivery_first_attempt_delay_seconds",
    "From the transaction that planned it to a delivery's first attempt.",
    JOURNEY_SECONDS,
    transport=TRANSPORTS,
)
END_TO_END_SECONDS = histogram(
    "delivery_end_to_end_seconds",
    "From the transaction that recorded the event to the end of the attempt that delivered it.",
    JOURNEY_SECONDS,
    transport=TRANSPORTS,
)
ATTEMPTS_TO_SUCCESS = histogram("delivery_attempts_to_success", "Attempts that a delivery took.", ATTEMPTS)
HTTP_CONNECTIONS = counter(
    "delivery_connections_total", "Connections used to deliver, by whether one was reused.", reused=("true", "false")
)

DESTINATIONS = gauge("destinations", "Endpoints, by state: healthy, degraded, open or paused.", "state")
BREAKER_TRANSITIONS = counter("breaker_transitions_total", "State changes of circuit breakers.", to=BREAKERS)
ENDPOINTS_DISABLED = counter(
    "endpoints_disabled_total", "Endpoints disabled because they asked for it, or because every attempt failed for days."
)

ACTOR_MESSAGES = counter("actor_messages_total", "Messages that an actor has finished.", queue=(), actor=(), outcome=())
ACTOR_SECONDS = histogram("actor_duration_seconds", "One run of an actor.", WORK_SECONDS, queue=(), actor=())
ACTOR_WAIT_SECONDS = histogram("actor_queue_wait_seconds", "From enqueueing to an actor's start.", WORK_SECONDS, pool=())
ACTOR_IN_PROGRESS = gauge("actor_in_progress", "Messages that actors are working on.", "pool")
WORKER_THREADS = gauge("worker_threads", "Threads that can run an actor.", "pool")

QUEUE_MESSAGES = gauge("queue_messages", "Messages in a queue, by state: ready or unacked.", "queue", "state")
UNROUTED_MESSAGES = counter(
    "unrouted_messages_total", "Messages that came out of waxseal.unrouted, because the inbox queue had been deleted."
)
QUEUE_CONSUMERS = gauge("queue_consumers", "Consumers of a queue.", "queue")
QUEUE_OLDEST_SECONDS = gauge("queue_oldest_message_age_seconds", "Age of the oldest message that waits.", "queue")
RETRIES_DUE = gauge("retries_due", "Deliveries that wait for a try, the first one too, by when: overdue or future.", "when")
DEAD_LETTERS = gauge("dead_letters", "Dead letters that wait for a decision, by the stage that buried them.", "queue")
DEAD_LETTER_OLDEST_SECONDS = gauge("dead_letter_oldest_age_seconds", "Age of the oldest dead letter.", "queue")
DEAD_LETTERS_MADE = counter("dead_letters_total", "Dead letters, by stage and reason.", stage=STAGES, reason=BURIALS)
DEAD_LETTER_REPLAYS = counter(
    "dead_letter_replays_total", "Dead letters decided upon, by result.", result=("replayed", "discarded")
)
COLLECTOR_UP = gauge("collector_up", "Whether the last collection succeeded (1) or not (0).", "collector")
COLLECTOR_LAST_SUCCESS = gauge("collector_last_success_timestamp_seconds", "When a collection last succeeded.", "collector")
SERVER_LAST_ANSWER = gauge(
    "server_last_answer_timestamp_seconds", "When Postgres or RabbitMQ last answered, where this process asks it.", "server"
)

MAIL_TOKEN_REFRESHES = counter(
    "mail_token_refreshes_total",
    "Requests for access tokens of mailboxes, by result; refused: a person has to authorise the mailbox again.",
    kind=(*MAIL_KINDS, "other"),
    outcome=("refreshed", "refused", "failed"),
)

POOL_CONNECTIONS = gauge("db_pool_connections", "Connections of the pool, by state: idle or checked_out.", "state")
POOL_SIZE = gauge("db_pool_size", "Connections the pool may hold.")
POOL_WAIT_SECONDS = histogram("db_pool_wait_seconds", "Waiting for a connection of the pool.", WORK_SECONDS)
BROKER_RECONNECTS = counter("broker_reconnects_total", "Times a broker connection was made anew.", connection=CONNECTIONS)
PROCESS_RESTARTS = counter("process_restarts_total", "Processes the supervisor started again.", process=PROCESSES)
BUILD_INFO = gauge("build_info", "Always 1; what is running.", "version", "python")


def observe_response(source: str, status: int, seconds: float, size: int, rejection: str | None = None) -> None:
    """Count an answer of the ingress: a 5xx as an error, a `rejection` as such; ingest counts what was answered with 202."""
    answered, took, held = _of_response(source, status)
    answered.inc()
    took.observe(seconds)
    held.observe(size)
    if status >= 500:
        observe_ingested(source, "error")
    elif rejection is not None:
        observe_rejected(source, rejection)


@lru_cache(256)  # finding series by their labels takes as long as counting
def _of_response(source: str, status: int) -> tuple[Counter, Histogram, Histogram]:
    source = closed(source, SOURCES)
    return INGRESS_RESPONSES.labels(closed(str(status), STATUSES)), INGEST_SECONDS.labels(source), INGEST_BYTES.labels(source)


def observe_ingested(source: str, outcome: str, count: int = 1) -> None:
    """Count messages of one source as `accepted`, `duplicate` or `error`, after COMMIT."""
    INGEST_MESSAGES.labels(closed(source, SOURCES), closed(outcome, OUTCOMES)).inc(count)


def observe_rejected(source: str, reason: str) -> None:
    """Count one message that was not admitted."""
    source = closed(source, SOURCES)
    INGEST_MESSAGES.labels(source, "rejected").inc()
    INGEST_REJECTIONS.labels(source, closed(reason, REJECTIONS)).inc()


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


def observe_delivered(transport: str, attempts: int, end_to_end: float) -> None:
    """Count a delivery that succeeded, after `attempts` and `end_to_end` seconds."""
    observe_all_delivered(transport, [attempts], [end_to_end])


def observe_all_delivered(transport: str, attempts: Sequence[int], end_to_end: Sequence[float]) -> None:
    """Count many deliveries that succeeded, as `observe_delivered` does."""
    delivered, journeys = _of_deliveries(transport)
    delivered.inc(len(attempts))
    observe_all(journeys, end_to_end)
    observe_all(ATTEMPTS_TO_SUCCESS, attempts)


# Looking a series up by its labels takes longer than counting in it.

_REUSED = {reused: HTTP_CONNECTIONS.labels(str(reused).lower()) for reused in (False, True)}


@lru_cache(64)
def _of_attempts(transport: str, fault: str) -> tuple[Counter, Histogram, Histogram]:
    transport, fault = closed(transport, TRANSPORTS), closed(fault, FAULTS)
    made = ATTEMPTS_MADE.labels(transport, "delivered" if fault == "none" else "failed", fault)
    return made, ATTEMPT_SECONDS.labels(transport), FIRST_ATTEMPT_SECONDS.labels(transport)


@lru_cache(64)
def _of_deliveries(transport: str) -> tuple[Counter, Histogram]:
    transport = closed(transport, TRANSPORTS)
    return DELIVERIES.labels(transport, "delivered"), END_TO_END_SECONDS.labels(transport)


def observe_cancelled(transport: str, count: int) -> None:
    """Count deliveries that were cancelled, because their endpoint was removed."""
    DELIVERIES.labels(closed(transport, TRANSPORTS), "cancelled").inc(count)


def observe_buried(stage: str, reason: str, transport: str | None = None) -> None:
    """Count a dead letter; with its `transport` if it was a delivery."""
    DEAD_LETTERS_MADE.labels(closed(stage, STAGES), closed(reason, BURIALS)).inc()
    if transport is not None:
        DELIVERIES.labels(closed(transport, TRANSPORTS), "dead_lettered").inc()


def observe_token_refresh(kind: str, outcome: str) -> None:
    """Count a request for an access token: `refreshed`, `refused` for good, or `failed` for now."""
    MAIL_TOKEN_REFRESHES.labels(closed(kind, (*MAIL_KINDS, "other")), outcome).inc()


def declare_actor(queue: str, actor: str, pool: str) -> None:
    """Make the series of an actor exist from boot; only the modules that define actors know their names."""
    for outcome in ("done", "failed", "skipped"):
        ACTOR_MESSAGES.labels(queue, actor, outcome)
    ACTOR_SECONDS.labels(queue, actor)
    ACTOR_WAIT_SECONDS.labels(pool)
    ACTOR_IN_PROGRESS.labels(pool).set(0)


def watch_pool(size: int, idle: Callable[[], int], checked_out: Callable[[], int]) -> None:
    """Read the database pool's state whenever the metrics are read."""
    POOL_SIZE.set(size)
    POOL_CONNECTIONS.labels("idle").set_function(idle)
    POOL_CONNECTIONS.labels("checked_out").set_function(checked_out)


def collected(collector: str, now: float | None) -> None:
    """Say whether a collector could read its figures: at `now` (seconds since 1970), or None if it could not."""
    COLLECTOR_UP.labels(collector).set(now is not None)
    if now is not None:
        COLLECTOR_LAST_SUCCESS.labels(collector).set(now)


def _version() -> str:
    try:
        return metadata.version("waxseal")
    except metadata.PackageNotFoundError:
        return "unknown"


BUILD_INFO.labels(_version(), platform.python_version()).set(1)
