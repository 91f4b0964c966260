"""The spans of receiving: one for a request, and one for each of its events, until the broker has confirmed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from ops.telemetry.tracing.harmless import harmless
from ops.telemetry.tracing.ids import fresh_span_id, fresh_trace_id, lasted
from ops.telemetry.tracing.publishing_spans import Publishing, publishing
from pipeline.dedupe import identity
from pipeline.formats.trace_context import PARENT, STATE, parsed
from schemas.trace import TraceContext

if TYPE_CHECKING:
    from ops.telemetry.tracing.spans import Spans, Value
    from schemas.source import Source

ROUTE: Final = "/in/{tenant}/{source}"
_METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})


class Receiving:
    """A request with a valid signature, and what it publishes.

    It is in the trace that its headers name, or else in that of its first event. An event may name another trace itself.
    """

    __slots__ = ("_parent_id", "published", "span")

    def __init__(self, spans: Spans, headers: Mapping[str, str], key: bytes, events: Sequence[Mapping[str, str]]) -> None:
        """`key` is that of the tenant's fingerprints."""
        of_events = [spans.sampling.of_event(identity(key, attributes), attributes) for attributes in events]
        called = parsed(headers.get(PARENT), headers.get(STATE))
        first = called or (of_events[0] if of_events else TraceContext(fresh_trace_id(), "", sampled=False))
        sampled = any(each.sampled for each in of_events) or spans.sampling.of(first.trace_id, called)
        self._parent_id = first.span_id
        self.span = TraceContext(first.trace_id, fresh_span_id(), sampled, first.state)
        self.published: list[Publishing | None] = [publishing(each, self.span) for each in of_events]

    @property
    def hops(self) -> list[TraceContext | None]:
        """For each event the span that its message names as where it comes from, if that is recorded."""
        return [None if each is None else each.span for each in self.published]

    @harmless
    def record(self, spans: Spans, source: Source, answer: Mapping[str, Value], seconds: float, fault: str | None) -> None:
        """Record the request's span, and those of its events: published, or not because of `fault`."""
        if not self.span.sampled:
            return
        times = lasted(seconds)
        spans.record(_name(answer), self.span, self._parent_id, times, answer, kind="server", error=fault)
        for each in self.published:
            if each is not None:
                each.record(spans, source, times, None if fault is None else "unconfirmed")


@harmless
def receiving(spans: Spans, headers: Mapping[str, str], key: bytes, events: Sequence[Mapping[str, str]]) -> Receiving:
    """The spans of a request whose events are about to be published."""
    return Receiving(spans, headers, key, events)


def answer_of(
    source: Source | None, method: str, status: int, size: int, request_id: str, rejection: str | None
) -> dict[str, Value]:
    """The attributes of a request's span; without its path if that names no `source`, because anybody may send anything."""
    attributes: dict[str, Value] = {
        "http.request.method": method if method in _METHODS else "_OTHER",
        "http.route": ROUTE,
        "http.request.body.size": size,
        "http.response.status_code": status,
        "url.scheme": "http",
        "waxseal.request_id": request_id,
    }
    if source is not None:
        attributes["url.path"] = f"/in/{source.tenant}/{source.name}"
        attributes["waxseal.tenant"] = source.tenant
        attributes["waxseal.source"] = source.name
    if rejection is not None:
        attributes["waxseal.rejection"] = rejection
    return attributes


@harmless
def refused(spans: Spans, headers: Mapping[str, str], answer: Mapping[str, Value], seconds: float, fault: str | None) -> None:
    """Record a request that published nothing, by our own sampling: its sender is not proved, so its wish does not count."""
    if not spans.sampling.of(fresh_trace_id()):
        return
    parent = parsed(headers.get(PARENT)) or TraceContext(fresh_trace_id(), "", sampled=True)
    span = TraceContext(parent.trace_id, fresh_span_id(), sampled=True)
    spans.record(_name(answer), span, parent.span_id, lasted(seconds), answer, kind="server", error=fault)


def _name(answer: Mapping[str, Value]) -> str:
    method = answer["http.request.method"]
    return f"{'HTTP' if method == '_OTHER' else method} {ROUTE}"
