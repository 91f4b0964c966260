"""Whether this process records traces, and the span that its current thread or task works in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from structlog.contextvars import bind_contextvars, unbind_contextvars

from ops.errors import Misconfigured
from ops.settings import tracing_settings
from ops.telemetry.tracing.sampling import sampling

if TYPE_CHECKING:
    from ops.telemetry.tracing.spans import Spans
    from schemas.trace import TraceContext

_NOWHERE: Final[AbstractContextManager[None]] = nullcontext()
_current: ContextVar[TraceContext | None] = ContextVar("span", default=None)


class _Switch:
    """Off until `start`."""

    spans: Spans | None = None


def start(process: str) -> None:
    """Record spans from now on, if the environment names a collector; else nothing is loaded. Raises `Misconfigured`."""
    settings = tracing_settings()
    if settings is None or _Switch.spans is not None:
        return
    try:
        rule = sampling(settings.sampler, settings.argument)
        from ops.telemetry.tracing.spans import Spans  # noqa: PLC0415 - a tenth of a second, which only traces are worth

        _Switch.spans = Spans(process, rule)
    except ValueError as error:
        raise Misconfigured(str(error)) from error


def stop() -> None:
    """Export what is left, within a deadline, and record nothing more."""
    spans, _Switch.spans = _Switch.spans, None
    if spans is not None:
        spans.close()


def active() -> Spans | None:
    """What records spans; None while tracing is off."""
    return _Switch.spans


def current() -> TraceContext | None:
    """The span that the caller works in, if it is recorded."""
    return _current.get()


def within(context: TraceContext | None) -> AbstractContextManager[None]:
    """Work in that span: log lines carry its ids. None, or a span that is not recorded, changes nothing."""
    return _NOWHERE if context is None or not context.sampled else _within(context)


@contextmanager
def _within(context: TraceContext) -> Iterator[None]:
    before = _current.set(context)
    bind_contextvars(trace_id=context.trace_id, span_id=context.span_id)
    try:
        yield
    finally:
        _current.reset(before)
        outer = _current.get()
        if outer is None:
            unbind_contextvars("trace_id", "span_id")
        else:
            bind_contextvars(trace_id=outer.trace_id, span_id=outer.span_id)
