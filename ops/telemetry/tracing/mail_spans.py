"""The spans of reading mailboxes: one for a pull, linked with those of the mails that it publishes, each in its own trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from time import time_ns
from typing import TYPE_CHECKING, Final

from ops.telemetry.tracing.harmless import harmless
from ops.telemetry.tracing.ids import fresh_span_id, fresh_trace_id
from ops.telemetry.tracing.publishing_spans import Publishing, publishing
from ops.telemetry.tracing.switch import within
from pipeline.dedupe import identity
from schemas.trace import TraceContext

if TYPE_CHECKING:
    from ops.telemetry.tracing.spans import Spans, Value
    from schemas.mailbox import Mailbox
    from schemas.source import Source

_FAILURES: Final = frozenset({"away", "throttled", "refused", "internal"})


class Pull:
    """One pull of a mailbox, for the thread that runs it."""

    def __init__(self, spans: Spans, mailbox: Mailbox, key: bytes) -> None:
        """`key` is that of the tenant's fingerprints."""
        self._spans = spans
        self._mailbox = mailbox
        self._key = key
        self._began = time_ns()
        trace_id = fresh_trace_id()
        self.span = TraceContext(trace_id, fresh_span_id(), spans.sampling.of(trace_id))
        self._published: list[TraceContext] = []

    @harmless
    def publishing(self, attributes: Mapping[str, str]) -> Publishing | None:
        """The span of publishing a mail with these attributes, if that is recorded."""
        origin = self._spans.sampling.of_event(identity(self._key, attributes), attributes)
        return publishing(origin, replace(self.span, sampled=True))

    @harmless
    def published(self, source: Source, mails: Sequence[Publishing], began: int) -> None:
        """Record that the broker has confirmed the mails, whose publishing began then."""
        for each in mails:
            each.record(self._spans, source, (began, time_ns()))
            self._published.append(each.span)

    @harmless
    def record(self, outcome: str) -> None:
        """Record the pull, if it is sampled or any of its mails is."""
        if not self.span.sampled and not self._published:
            return
        attributes: dict[str, Value] = {
            "waxseal.tenant": self._mailbox.tenant,
            "waxseal.mailbox": self._mailbox.name,
            "waxseal.outcome": outcome,
        }
        self._spans.record(
            f"pull {self._mailbox.kind}",
            replace(self.span, sampled=True),
            "",
            (self._began, time_ns()),
            attributes,
            kind="client",
            links=self._published,
            error=outcome if outcome in _FAILURES else None,
        )


_pull: ContextVar[Pull | None] = ContextVar("pull", default=None)


def current_pull() -> Pull | None:
    """The pull that the caller is part of, while traces are recorded."""
    return _pull.get()


@contextmanager
def during(pull: Pull) -> Iterator[None]:
    """Have what is called be part of the pull."""
    before = _pull.set(pull)
    try:
        with within(pull.span):
            yield
    finally:
        _pull.reset(before)
