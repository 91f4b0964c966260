"""The spans of a batch: one for the batch, linked to its messages, and one for each event in the event's own trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from ops.telemetry.tracing.harmless import harmless
from ops.telemetry.tracing.ids import fresh_span_id, fresh_trace_id, lasted
from ops.telemetry.tracing.messaging import PROCESS
from pipeline.formats.trace_context import PARENT, entry_span_id, named, parsed
from schemas.trace import TraceContext

if TYPE_CHECKING:
    from ops.telemetry.tracing.spans import Spans, Value
    from schemas.dead_letter import DeadLetter
    from schemas.entry import Entry
    from schemas.event import Event
    from schemas.message import Message

QUEUE: Final = "waxseal.ingest"
_BATCH: Final = {
    **PROCESS,
    "messaging.destination.name": QUEUE,
}

Found = tuple["Message", "Event"]


@harmless
def committed(
    spans: Spans, messages: Sequence[tuple[Message, Sequence[Event]]], entries: Sequence[Entry], seconds: float
) -> TraceContext | None:
    """Record a batch after its COMMIT, and give its span. Nothing is made for an event that is not sampled."""
    found = list(_sampled(spans, messages))
    if not found:
        return None
    recorded = {id(entry.event): entry for entry in entries}
    times = lasted(seconds)
    links = [_appended(spans, message, event, recorded.get(id(event)), times) for message, event in found]
    attributes: dict[str, Value] = {**_BATCH, "messaging.batch.message_count": len(messages), "waxseal.entries": len(entries)}
    batch = TraceContext(fresh_trace_id(), fresh_span_id(), sampled=True)
    spans.record(f"process {QUEUE}", batch, "", times, attributes, kind="consumer", links=links)
    return batch


@harmless
def buried(spans: Spans, letter: DeadLetter) -> TraceContext | None:
    """Record a message that became a dead letter, in the trace that it names or else in a new one, and give the span."""
    parent = named((letter.headers or {}).get("headers") or {})
    trace_id = fresh_trace_id() if parent is None else parent.trace_id
    if not spans.sampling.of(trace_id, parent):
        return None
    span = TraceContext(trace_id, fresh_span_id(), sampled=True, state="" if parent is None else parent.state)
    attributes: dict[str, Value] = {
        "waxseal.stage": letter.stage,
        "waxseal.reason": letter.reason,
        "waxseal.tenant": letter.tenant or "",
        "waxseal.source": letter.source or "",
    }
    spans.record("bury", span, "" if parent is None else parent.span_id, lasted(0.0), attributes, error=letter.reason)
    return span


def _sampled(spans: Spans, messages: Iterable[tuple[Message, Sequence[Event]]]) -> Iterator[Found]:
    """The events whose traces are recorded. This runs for every event: it makes nothing for the others."""
    threshold, of_event = spans.sampling.threshold, spans.sampling.of_event
    for message, events in messages:
        for event in events:
            if PARENT in event.attributes:
                if of_event(event.fingerprint, event.attributes).sampled:
                    yield message, event
            elif event.fingerprint[8:] < threshold:
                yield message, event


def _appended(spans: Spans, message: Message, event: Event, entry: Entry | None, times: tuple[int, int]) -> TraceContext:
    """Record what became of an event, and give the span that a batch links to: that of the message, if it names one."""
    origin = spans.sampling.of_event(event.fingerprint, event.attributes)
    hop = parsed(message.headers.get(PARENT)) if message.trusted and message.headers else None
    same = hop is not None and hop.trace_id == origin.trace_id
    parent_id = hop.span_id if hop is not None and same else origin.span_id
    attributes: dict[str, Value] = {
        "cloudevents.event_id": event.id,
        "cloudevents.event_source": event.attributes["source"],
        "waxseal.tenant": event.tenant,
        "waxseal.outcome": "duplicate" if entry is None else "accepted",
    }
    if entry is not None:
        attributes["waxseal.chain"] = entry.chain_id.hex
        attributes["waxseal.seq"] = entry.seq
    span_id = fresh_span_id() if entry is None else entry_span_id(event.fingerprint)
    span = TraceContext(origin.trace_id, span_id, sampled=True, state=origin.state)
    links = (hop,) if hop is not None and not same else ()
    spans.record("append", span, parent_id, times, attributes, kind="consumer", links=links)
    return hop or (origin if origin.span_id else span)
