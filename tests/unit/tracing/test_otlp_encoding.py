from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from ops.telemetry.tracing.otlp_encoding import KINDS, encoded_span
from schemas.trace import TraceContext

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=300)
VALUES = TEXT | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(allow_nan=False)
CONTEXTS = st.builds(
    TraceContext,
    st.integers(1, 2**128 - 1).map("{:032x}".format),
    st.integers(1, 2**64 - 1).map("{:016x}".format),
    st.just(True),
    st.sampled_from(["", "vendor=opaque"]),
)
PARENTS = st.just("") | st.integers(1, 2**64 - 1).map("{:016x}".format)
TIMES = st.tuples(*2 * [st.integers(1, 2**63)])


def of_the_sdk(context: TraceContext) -> SpanContext:
    state = TraceState.from_header([context.state] if context.state else [])
    return SpanContext(int(context.trace_id, 16), int(context.span_id, 16), True, TraceFlags(1), state)


@given(
    TEXT,
    CONTEXTS,
    PARENTS,
    TIMES,
    st.dictionaries(TEXT, VALUES),
    st.sampled_from(list(KINDS)),
    st.lists(CONTEXTS),
    st.booleans(),
)
def test_a_span_is_encoded_as_by_the_sdk(name, context, parent_id, times, attributes, kind, links, failed) -> None:
    theirs = ReadableSpan(
        name,
        of_the_sdk(context),
        SpanContext(1, int(parent_id, 16), is_remote=True) if parent_id else None,
        Resource({}),
        attributes,
        links=[Link(of_the_sdk(each)) for each in links],
        kind=SpanKind[kind.upper()],
        status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
        start_time=times[0],
        end_time=times[1],
    )
    (wanted,) = encode_spans([theirs]).resource_spans[0].scope_spans[0].spans

    (found,) = ScopeSpans.FromString(
        encoded_span(name, context, parent_id, times, attributes, kind, links, failed=failed)
    ).spans

    assert wanted == found
