import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from ops.telemetry.tracing.sampling import SAMPLERS, sampling
from schemas.trace import TraceContext

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


@pytest.mark.parametrize("name", ["", *SAMPLERS])
@pytest.mark.parametrize("share", ["", "0", "0.1", "1.0"])
def test_traces_are_sampled_as_by_the_sdk(name, share, monkeypatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name or "parentbased_always_on")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", share)
    theirs, ours = TracerProvider(shutdown_on_exit=False).sampler, sampling(name, share)
    for _ in range(200):
        trace_id = os.urandom(16)
        number = int.from_bytes(trace_id, "big")
        for parent in (None, True, False):
            span = SpanContext(number, 7, is_remote=True, trace_flags=TraceFlags(bool(parent)))
            context = Context() if parent is None else set_span_in_context(NonRecordingSpan(span))
            wanted = theirs.should_sample(context, number, "x").decision is Decision.RECORD_AND_SAMPLE
            given_ = None if parent is None else TraceContext(trace_id.hex(), SPAN, parent)
            assert wanted == ours.of(trace_id.hex(), given_)


@given(st.binary(min_size=16, max_size=16), st.sampled_from(["0", "0.1", "0.5", "1"]))
def test_the_threshold_decides_the_same_from_a_fingerprint(fingerprint, share) -> None:
    rule = sampling("traceidratio", share)

    assert rule.of(fingerprint.hex()) == (fingerprint[8:] < rule.threshold)
    assert TraceContext(fingerprint.hex(), "", rule.of(fingerprint.hex())) == rule.of_event(fingerprint, {})


def test_an_event_is_in_the_trace_that_its_sender_named() -> None:
    attributes = {"traceparent": f"00-{TRACE}-{SPAN}-00", "tracestate": "a=1"}

    assert TraceContext(TRACE, SPAN, sampled=False, state="a=1") == sampling("", "").of_event(b"f" * 16, attributes)
    assert TraceContext(TRACE, SPAN, sampled=True, state="a=1") == sampling("always_on", "").of_event(b"f" * 16, attributes)
    assert "66" * 16 == sampling("", "").of_event(b"f" * 16, {"traceparent": "00-nonsense"}).trace_id


@pytest.mark.parametrize(
    ("name", "share", "said"),
    [("sometimes", "", "OTEL_TRACES_SAMPLER: "), ("traceidratio", "2", "_ARG: '2'"), ("traceidratio", "x", "_ARG: 'x'")],
)
def test_a_sampler_that_does_not_exist_is_named(name, share, said) -> None:
    with pytest.raises(ValueError, match=said):
        sampling(name, share)
