"""The spans of publishing to the inbox: of an event that was received, and of a dead letter that is replayed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ops.telemetry.tracing.harmless import harmless
from ops.telemetry.tracing.ids import fresh_span_id, lasted
from ops.telemetry.tracing.messaging import PUBLISH
from pipeline.formats.trace_context import named
from schemas.trace import TraceContext

if TYPE_CHECKING:
    from ops.telemetry.tracing.spans import Spans
    from schemas.message import Message
    from schemas.source import Source

EXCHANGE: Final = "waxseal.received"


@dataclass(slots=True)
class Publishing:
    """An event that is published: the span, and that of which it is a part. `within` is in the same trace, or is linked."""

    span: TraceContext
    parent_id: str
    within: TraceContext

    def record(self, spans: Spans, source: Source, times: tuple[int, int], error: str | None = None) -> None:
        """Record it: confirmed by the broker, or not because of `error`."""
        attributes = {
            **PUBLISH,
            "messaging.destination.name": EXCHANGE,
            "messaging.rabbitmq.destination.routing_key": f"{source.tenant}.{source.name}",
        }
        links = () if self.within.trace_id == self.span.trace_id else (self.within,)
        name = f"publish {EXCHANGE}"
        spans.record(name, self.span, self.parent_id, times, attributes, kind="producer", links=links, error=error)


def publishing(event: TraceContext, within: TraceContext) -> Publishing | None:
    """The span of publishing `event` as a part of `within`; None if it is not recorded."""
    if not event.sampled:
        return None
    parent_id = within.span_id if event.trace_id == within.trace_id else event.span_id
    return Publishing(TraceContext(event.trace_id, fresh_span_id(), sampled=True, state=event.state), parent_id, within)


@harmless
def replaying(spans: Spans, message: Message) -> TraceContext | None:
    """The span of replaying a dead letter, in the trace that its message names, if that is recorded."""
    parent = named(message.headers or {})
    if parent is None or not spans.sampling.of(parent.trace_id, parent):
        return None
    return TraceContext(parent.trace_id, fresh_span_id(), sampled=True, state=parent.state)


@harmless
def replayed(spans: Spans, message: Message, span: TraceContext, seconds: float, error: str | None) -> None:
    """Record that a dead letter was published again; `seconds` are those since then."""
    parent = named(message.headers or {})
    attributes = {
        **PUBLISH,
        "messaging.rabbitmq.destination.routing_key": message.routing_key,
    }
    parent_id = "" if parent is None else parent.span_id
    spans.record("replay", span, parent_id, lasted(seconds), attributes, kind="producer", error=error)
