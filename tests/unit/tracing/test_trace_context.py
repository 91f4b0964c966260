import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats.trace_context import is_traceparent, is_tracestate, named, parsed, traceparent
from schemas.trace import TraceContext

TRACE, SPAN = "12345678901234567890123456789012", "1234567890123456"
PARENT = f"00-{TRACE}-{SPAN}-01"

# The cases of the W3C's test suite (w3c/trace-context, test/test.py), with those of level 2.
INVALID = [
    "",
    f".0-{TRACE}-{SPAN}-01",
    f"0.-{TRACE}-{SPAN}-01",
    f"0-{TRACE}-{SPAN}-01",
    f"000-{TRACE}-{SPAN}-01",
    f"ff-{TRACE}-{SPAN}-01",
    f"00-{TRACE}-{SPAN}-01.",
    f"00-{TRACE}-{SPAN}-01-what-the-future-will-be-like",
    f"cc-{TRACE}-{SPAN}-01.what-the-future-will-not-be-like",
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-.{TRACE[1:]}-{SPAN}-01",
    f"00-{TRACE[:-1]}.-{SPAN}-01",
    f"00-{TRACE}0-{SPAN}-01",
    f"00-{TRACE[:-1]}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE}-.{SPAN[1:]}-01",
    f"00-{TRACE}-{SPAN}0-01",
    f"00-{TRACE}-{SPAN[:-1]}-01",
    f"00-{TRACE}-{SPAN}-.0",
    f"00-{TRACE}-{SPAN}-0.",
    f"00-{TRACE}-{SPAN}-001",
    f"00-{TRACE}-{SPAN}-1",
    f"00-{TRACE.replace('1', 'A')}-{SPAN}-01",
    f"00-{TRACE}-{SPAN.replace('1', 'F')}-01",
    f"{PARENT}, {PARENT}",
    f" {PARENT}",
    f"{PARENT}\n",
]


@pytest.mark.parametrize("header", [*INVALID, None, 7, PARENT.encode()])
def test_an_invalid_traceparent_is_none(header) -> None:
    assert not is_traceparent(header)
    assert parsed(header, "a=1") is None


@pytest.mark.parametrize("header", [f"cc-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"])
def test_a_later_version_is_read_as_far_as_it_is_known(header) -> None:
    assert TraceContext(TRACE, SPAN, sampled=True) == parsed(header)


@pytest.mark.parametrize(
    ("flags", "known"), [("00", "00"), ("01", "01"), ("02", "02"), ("03", "03"), ("ff", "03"), ("fc", "00")]
)
def test_the_flags_that_are_known_are_passed_on(flags, known) -> None:
    context = parsed(PARENT[:-2] + flags)

    assert context is not None
    assert (known in ("01", "03"), known in ("02", "03")) == (context.sampled, context.random)
    assert f"00-{TRACE}-{SPAN}-{known}" == traceparent(context)


@pytest.mark.parametrize(
    "state",
    [
        "foo=1",
        "foo=1,bar=2",
        "foo=1 , bar=2",
        "foo=1\t,\tbar=2",
        "foo=1,,bar=2",
        "foo@bar=1",
        "0=1",
        f"{'z' * 256}=1",
        f"{'t' * 241}@{'v' * 14}=1",
        ",".join(f"bar{number:02}={number:02}" for number in range(32)),
        f"foo={'.' * 256}",
        "a=x y",
        "foo-_*/bar=b-_*/t",
        "foo=1,foo=2",
        "foo@=1",
        "foo@@bar=1",
        "foo@bar@baz=1",
        f"{'t' * 242}@v=1",
    ],
)
def test_a_valid_tracestate_is_kept_as_it_is(state) -> None:
    context = parsed(PARENT, state)

    assert context is not None
    assert state == context.state


@pytest.mark.parametrize(
    "state",
    [
        "",
        " ",
        ",",
        "foo",
        "foo=",
        "=1",
        "foo=1=2",
        "foo =1",
        "FOO=1",
        "foo.bar=1",
        "@foo=1",
        f"{'z' * 257}=1",
        ",".join(f"bar{number:02}={number:02}" for number in range(33)),
        f"foo={'.' * 257}",
        "foo=\x00",
        "foo=é",
        f"a={'.' * 254},b={'.' * 254}",
        7,
    ],
)
def test_an_invalid_tracestate_is_left_out_and_the_trace_is_kept(state) -> None:
    assert not is_tracestate(state)
    assert TraceContext(TRACE, SPAN, sampled=True) == parsed(PARENT, state)


@given(st.text(), st.text())
def test_no_text_makes_the_parser_fail(parent, state) -> None:
    assert is_traceparent(parent) or parsed(parent, state) is None
    is_tracestate(state)


def test_a_message_names_the_span_in_which_it_was_published_before_that_of_its_event() -> None:
    other = f"00-{TRACE}-{'a' * 16}-01"
    of_event = {"cloudEvents:traceparent": PARENT, "cloudEvents:tracestate": "a=1"}

    assert TraceContext(TRACE, SPAN, sampled=True, state="a=1") == named(of_event)
    assert TraceContext(TRACE, "a" * 16, sampled=True) == named({**of_event, "traceparent": other})
    assert named({}) is None
