"""The spans of delivering: the claim of many deliveries; for each of them its replay, claims, attempts and burial.

Those of a delivery are in its event's trace, children of the span in which the event was appended, however late they come.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import orjson

from ops.telemetry.tracing.harmless import harmless
from ops.telemetry.tracing.ids import fresh_span_id, fresh_trace_id, lasted
from ops.telemetry.tracing.messaging import PUBLISH
from pipeline.formats.trace_context import entry_span_id
from schemas.config.amqp_target import AmqpTarget
from schemas.config.smtp_target import SmtpTarget
from schemas.trace import TraceContext

if TYPE_CHECKING:
    from ops.telemetry.tracing.spans import Kind, Spans, Value
    from schemas.delivery import Delivery, Receipt, Settlement
    from schemas.endpoint import Endpoint

QUEUE: Final = "waxseal.deliver"
_GIVEN: Final = b'"traceparent"'  # occurs in the attributes of every event whose sender named a trace


@harmless
def claiming(spans: Spans) -> TraceContext | None:
    """The span of the next claim of a relay, if that is to be recorded."""
    trace_id = fresh_trace_id()
    return TraceContext(trace_id, fresh_span_id(), sampled=True) if spans.sampling.of(trace_id) else None


@harmless
def claimed(spans: Spans, span: TraceContext, deliveries: int, began: datetime, *, lost: int) -> None:
    """Record the claim of a relay, from its beginning until the broker has confirmed its messages, all but the `lost` ones."""
    attributes: dict[str, Value] = {
        **PUBLISH,
        "messaging.destination.name": QUEUE,
        "messaging.batch.message_count": deliveries,
    }
    times = (nanoseconds(began), time.time_ns())
    spans.record("claim batch", span, "", times, attributes, kind="producer", error="unconfirmed" if lost else None)


@harmless
def attempt(spans: Spans, delivery: Delivery) -> TraceContext:
    """The span of the next attempt."""
    attributes = orjson.loads(delivery.attributes) if _GIVEN in delivery.attributes else {}
    origin = spans.sampling.of_event(delivery.fingerprint, attributes)
    return TraceContext(origin.trace_id, fresh_span_id(), origin.sampled, origin.state, origin.random)


@harmless
def begun(spans: Spans, delivery: Delivery, claimed_at: float, batch: TraceContext | None) -> None:
    """Record, when an attempt begins, the wait since the claim, which was part of `batch`; and the replay that led to it."""
    span = delivery.trace
    if span is None or not span.sampled:
        return
    claim = (int(claimed_at * 1e9), time.time_ns())
    if delivery.attempts and delivery.attempts == delivery.schedule_from and delivery.age_from is not None:
        replayed = nanoseconds(delivery.age_from)
        _record(spans, "replay", delivery, (replayed, max(replayed, claim[0])))
    _record(spans, "claim", delivery, claim, links=() if batch is None else (batch,))


@harmless
def attempted(spans: Spans, endpoint: Endpoint, delivery: Delivery, settlement: Settlement) -> None:
    """Record an attempt, with its verdict."""
    span, receipt = delivery.trace, settlement.receipt
    if span is None or not span.sampled:
        return
    name, kind, attributes = _destination(endpoint)
    attributes |= _of_delivery(delivery)
    attributes["waxseal.endpoint"] = endpoint.name
    attributes["waxseal.transport"] = endpoint.transport
    attributes["waxseal.attempt"] = settlement.attempt
    attributes["waxseal.outcome"] = settlement.outcome
    if endpoint.transport == "http":
        attributes |= _exchanged(receipt, settlement.attempt)
    if settlement.next_attempt_at is not None:
        attributes["waxseal.next_attempt_at"] = settlement.next_attempt_at.isoformat()
    began = nanoseconds(receipt.started_at)
    times = (began, began + int(receipt.duration * 1e9))
    error = None if receipt.error is None else _error(receipt)
    spans.record(name, span, entry_span_id(delivery.fingerprint), times, attributes, kind=kind, error=error)


@harmless
def buried(spans: Spans, delivery: Delivery, reason: str) -> TraceContext | None:
    """Record that a delivery became a dead letter, and give the span."""
    last = delivery.trace or attempt(spans, delivery)
    if last is None or not last.sampled:
        return None
    span = TraceContext(last.trace_id, fresh_span_id(), sampled=True, state=last.state)
    parent_id = last.span_id if delivery.trace is not None else entry_span_id(delivery.fingerprint)
    attributes = {**_of_delivery(delivery), "waxseal.stage": "deliver", "waxseal.reason": reason}
    spans.record("bury", span, parent_id, lasted(0.0), attributes, error=reason)
    return span


def nanoseconds(moment: datetime) -> int:
    """A time as spans have it."""
    return int(moment.timestamp() * 1e6) * 1000


def _record(spans: Spans, name: str, delivery: Delivery, times: tuple[int, int], links: tuple[TraceContext, ...] = ()) -> None:
    assert delivery.trace is not None
    span = TraceContext(delivery.trace.trace_id, fresh_span_id(), sampled=True, state=delivery.trace.state)
    spans.record(name, span, entry_span_id(delivery.fingerprint), times, _of_delivery(delivery), links=links)


def _of_delivery(delivery: Delivery) -> dict[str, Value]:
    return {
        "waxseal.tenant": delivery.tenant,
        "waxseal.chain": delivery.chain_id.hex,
        "waxseal.seq": delivery.seq,
        "waxseal.delivery": delivery.id,
    }


def _destination(endpoint: Endpoint) -> tuple[str, Kind, dict[str, Value]]:
    """The name and kind of an attempt's span, and where it goes. No path, query or user: many URLs hold a secret."""
    target = endpoint.target
    if isinstance(target, AmqpTarget):
        return (
            f"publish {target.exchange}",
            "producer",
            {
                **PUBLISH,
                "messaging.destination.name": target.exchange,
            },
        )
    if isinstance(target, SmtpTarget):
        return "send mail", "client", {"server.address": target.host, "server.port": target.port}
    return "POST", "client", {"http.request.method": "POST", **_server(endpoint.url)}


def _server(url: str) -> dict[str, Value]:
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return {}
    return {"url.scheme": parts.scheme, "server.address": parts.hostname or "", "server.port": port}


def _exchanged(receipt: Receipt, number: int) -> dict[str, Value]:
    found: dict[str, Value] = {}
    if receipt.status is not None:
        found["http.response.status_code"] = receipt.status
    if number > 1:
        found["http.request.resend_count"] = number - 1
    if receipt.address is not None:
        found["network.peer.address"] = receipt.address.rpartition(":")[0].strip("[]")
    return found


def _error(receipt: Receipt) -> str:
    """The status, if that is the error (semantic conventions of HTTP), else its class."""
    return str(receipt.status) if receipt.status is not None and receipt.status >= 300 else receipt.error or "_OTHER"
