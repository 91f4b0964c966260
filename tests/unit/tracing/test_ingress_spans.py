from typing import Any

from ops.telemetry.tracing.ingress_spans import Receiving, answer_of, refused
from pipeline.dedupe import identity
from schemas.source import Source
from schemas.trace import TraceContext
from support.telemetry.recorder import Recorder

KEY = b"k" * 32
SHOP = Source("acme", "shop", "none")
TRACE, SENDER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
OTHER = "0af7651916cd43dd8448eb211c80319c"
ANSWER = answer_of(SHOP, "POST", 202, 2, "r-1", None)


def event(name: str, **more: str) -> dict[str, str]:
    return {"id": name, "source": "shop"} | more


def received(recorder: Recorder, headers: dict[str, str], *events: dict[str, str], fault: str | None = None) -> Receiving:
    spans: Any = recorder
    receiving = Receiving(spans, headers, KEY, events)
    receiving.record(spans, SHOP, ANSWER, 0.1, fault)
    return receiving


def test_a_request_and_its_event_are_in_the_senders_trace() -> None:
    recorder = Recorder("0")
    parent = f"00-{TRACE}-{SENDER}-01"
    receiving = received(recorder, {"traceparent": parent}, event("1", traceparent=parent))

    request, publish = recorder.spans
    assert (TRACE, SENDER, TRACE, request.context.span_id) == (
        *(request.context.trace_id, request.parent_id, publish.context.trace_id, publish.parent_id),
    )
    assert [publish.context] == receiving.hops


def test_a_sender_that_does_not_record_is_not_recorded() -> None:
    recorder = Recorder("1")
    parent = f"00-{TRACE}-{SENDER}-00"
    receiving = received(recorder, {"traceparent": parent}, event("1", traceparent=parent))

    assert ([], [None]) == (recorder.spans, receiving.hops)


def test_each_event_of_a_batch_has_its_trace_and_a_link_to_the_request() -> None:
    recorder = Recorder("1")
    events = event("1"), event("2"), event("3", traceparent=f"00-{OTHER}-{SENDER}-01")
    received(recorder, {}, *events)

    request, first, second, third = recorder.spans
    traces = [identity(KEY, each).hex() for each in events[:2]]
    assert [*traces, OTHER] == [each.context.trace_id for each in (first, second, third)]
    assert (traces[0], "", request.context.span_id) == (request.context.trace_id, request.parent_id, first.parent_id)
    assert [(), (request.context,), (request.context,)] == [each.links for each in (first, second, third)]
    assert ["", SENDER] == [second.parent_id, third.parent_id]


def test_what_the_broker_does_not_confirm_has_failed() -> None:
    recorder = Recorder("1")
    received(recorder, {}, event("1"), fault="503")

    assert ["503", "unconfirmed"] == [each.error for each in recorder.spans]


def test_who_is_refused_does_not_decide_what_is_recorded() -> None:
    sampled = {"traceparent": f"00-{TRACE}-{SENDER}-01"}
    told = answer_of(None, "BREW", 401, 2, "r-1", "signature")
    recorders = [Recorder("0"), Recorder("1")]
    for recorder in recorders:
        refused(recorder, sampled, told, 0.1, None)  # type: ignore[arg-type]

    assert [0, 1] == [len(recorder.spans) for recorder in recorders]
    (span,) = recorders[1].spans
    assert ("HTTP /in/{tenant}/{source}", TRACE, SENDER) == (span.name, span.context.trace_id, span.parent_id)
    assert ("_OTHER", "signature", None) == (
        *(span.attributes["http.request.method"], span.attributes["waxseal.rejection"], span.attributes.get("url.path")),
    )


def test_a_request_without_events_has_a_trace_of_its_own() -> None:
    recorder = Recorder("1")
    receiving = received(recorder, {})

    (request,) = recorder.spans
    assert isinstance(request.context, TraceContext)
    assert ("", []) == (request.parent_id, receiving.hops)
