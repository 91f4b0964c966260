"""Metrics and log entries about a committed batch."""

from collections import Counter
from collections.abc import Sequence

import structlog

from ops.telemetry import ingest_metrics, metrics
from ops.telemetry.tracing import ingest_spans
from ops.telemetry.tracing.switch import active, within
from pipeline.append import Appended
from schemas.catalog import Catalog
from schemas.dead_letter import DeadLetter
from schemas.event import Event
from schemas.message import Message

log = structlog.get_logger()


class Report:
    """Counts and logs a committed batch, by the source kinds in `catalog`; the other arguments are in seconds."""

    def __init__(
        self, catalog: Catalog, seconds: float = 0.0, append_seconds: float = 0.0, lock_wait: float | None = None
    ) -> None:
        self._catalog = catalog
        self._seconds = seconds
        self._append_seconds = append_seconds
        self._lock_wait = lock_wait

    def batch(self, messages: Sequence[tuple[Message, Sequence[Event]]], appended: Appended) -> None:
        """Report the events of `messages`; those that were not `appended` are duplicates."""
        events = [event for _message, events in messages for event in events]
        new = self._by_kind([entry.event for entry in appended.entries])
        spans = active()
        span = None if spans is None else ingest_spans.committed(spans, messages, appended.entries, self._seconds)
        ingest_metrics.observe_batch(
            new,
            self._by_kind(events) - new,
            seconds=self._seconds,
            append=self._append_seconds,
            lock_wait=self._lock_wait,
            trace_id=None if span is None else span.trace_id,
        )
        with within(span):
            log.debug(
                "batch_appended",
                events=len(events),
                entries=len(appended.entries),
                duplicates=appended.duplicates,
                deliveries=appended.planned,
                seconds=round(self._seconds, 4),
            )

    def buried(self, dead_letters: Sequence[DeadLetter]) -> None:
        """Report messages that were buried."""
        for each in dead_letters:
            metrics.observe_buried(each.stage, each.reason)
            metrics.observe_rejected(self._kind(each.tenant or "", each.source or ""), each.reason)
            spans = active()
            with within(None if spans is None else ingest_spans.buried(spans, each)):
                log.warning("message_buried", stage=each.stage, reason=each.reason, detail=each.detail, source=each.source)

    def _by_kind(self, events: Sequence[Event]) -> Counter[str]:
        found: Counter[str] = Counter()
        for place, count in Counter([(event.tenant, event.attributes["source"]) for event in events]).items():
            found[self._kind(*place)] += count
        return found

    def _kind(self, tenant: str, source: str) -> str:
        known = self._catalog.sources.get((tenant, source))
        return known.kind if known else "unknown"
