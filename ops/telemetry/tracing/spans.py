"""Spans as OpenTelemetry's SDK exports them. Import this module only when tracing is on: it loads the SDK.

A span is recorded when it is over, from its facts, with identifiers that are known before. So nothing is allocated for a
message that is not sampled, and no span stays open when a process dies.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Final, Literal

import structlog
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_NAMESPACE, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, TraceFlags

from ops.telemetry.tracing.otlp_encoding import Value, encoded_span, message
from ops.telemetry.tracing.sampling import Sampling
from schemas.trace import TraceContext

FLUSH_SECONDS: Final = 3.0  # for what is left when the process stops; a collector that hangs must not hold it up
MOST_LINKS: Final = 128  # of one span: the limit that OpenTelemetry's SDK has by default

Kind = Literal["internal", "server", "client", "producer", "consumer"]

__all__ = ["Kind", "Spans", "Value"]

_SAMPLED: Final = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

_log = structlog.get_logger()


class _Encoded(ReadableSpan):
    """A span that is encoded already. The queue asks it only whether it is sampled."""

    __slots__ = ("encoded",)

    _context = _SAMPLED

    def __init__(self, encoded: bytes) -> None:
        self.encoded = encoded


class _Exporter(OTLPSpanExporter):
    """Exports encoded spans with OpenTelemetry's client, which has its deadline, its repetitions and its settings."""

    def __init__(self, resource: bytes, scope: bytes) -> None:
        super().__init__()
        self._before = resource, scope

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send them all in one request."""
        resource, scope = self._before
        of_scope = b"".join([scope, *(span.encoded for span in spans if isinstance(span, _Encoded))])
        done = self._client.export(message(1, resource + message(2, of_scope)))
        return SpanExportResult.SUCCESS if done.success else SpanExportResult.FAILURE


class Spans:
    """Records spans, from construction to `close`. Any thread may; nothing waits for the collector.

    At most OTEL_BSP_MAX_QUEUE_SIZE spans wait for a thread that exports them. While that is full, the oldest are dropped.
    """

    def __init__(self, process: str, sampling: Sampling) -> None:
        """The exporter and the queue have the standard's variables as their settings (OTEL_EXPORTER_OTLP_…, OTEL_BSP_…)."""
        # Its warnings are about each try; that an export failed is an error, which it logs three times a minute at most.
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)
        self.sampling = sampling
        self._processor = BatchSpanProcessor(_Exporter(*_described(process)))

    def record(
        self,
        name: str,
        context: TraceContext,
        parent_id: str,
        times: tuple[int, int],
        attributes: Mapping[str, Value],
        *,
        kind: Kind = "internal",
        links: Sequence[TraceContext] = (),
        error: str | None = None,
    ) -> None:
        """Record a span that is over: `context` names it, `times` are its start and end in Unix nanoseconds.

        `parent_id` is empty for a root. `error` is a class of error, of a closed set.
        """
        if error is not None:
            attributes = {**attributes, "error.type": error}
        few = links[:MOST_LINKS]
        encoded = encoded_span(name, context, parent_id, times, attributes, kind, few, failed=error is not None)
        self._processor.on_end(_Encoded(encoded))

    def close(self) -> None:
        """Export what is left, for `FLUSH_SECONDS` at most; the rest is lost."""
        flushing = threading.Thread(target=self._processor.shutdown, name="flush-spans", daemon=True)
        flushing.start()
        flushing.join(FLUSH_SECONDS)
        if flushing.is_alive():
            _log.warning("spans_not_flushed", seconds=FLUSH_SECONDS)


def _described(process: str) -> tuple[bytes, bytes]:
    """What the spans are of, encoded: the resource and the scope."""
    scope = InstrumentationScope("waxseal", version("waxseal"))
    like = ReadableSpan("", _SAMPLED, None, _resource(process), instrumentation_scope=scope)
    (encoded,) = encode_spans([like]).resource_spans
    return message(1, encoded.resource.SerializeToString()), message(1, encoded.scope_spans[0].scope.SerializeToString())


def _resource(process: str) -> Resource:
    """What the standard's variables and detectors say of this process; if they do not name it, its own name."""
    found = Resource.create()
    ours: dict[str, Value] = {
        SERVICE_VERSION: version("waxseal"),
        SERVICE_NAMESPACE: "waxseal",
        SERVICE_NAME: f"waxseal-{process}",
    }
    unnamed = str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service")
    given = {name: value for name, value in found.attributes.items() if not (unnamed and name == SERVICE_NAME)}
    return Resource({**ours, **given}, found.schema_url)
