"""One trace from its sender to the endpoints, through real processes that export to a collector of the test."""

import urllib.request
from collections.abc import Iterator

import pika
import pytest

from support.cli import Cli
from support.net.ports import free_port
from support.net.sink import Sink
from support.sending import SECRET
from support.telemetry.otlp import Collector, Received, collector
from support.waiting import wait_for
from workers.amqp.topology import IN

pytestmark = pytest.mark.usefixtures("traced")

SENDER = "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Sink]:
    sink = Sink()
    sink.start()
    yield sink
    sink.stop()


@pytest.fixture(scope="module")
def traces() -> Iterator[Collector]:
    with collector() as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.endpoint)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield found


@pytest.fixture(scope="module")
def ingress(traces, shared_database, shared_start, endpoint) -> str:
    """The address of the ingress of a whole system, whose endpoint refuses everything until the sink is released."""
    shared_database.add_tenant()
    shared_database.add_source("shop", "none")
    shared_database.add_source("orders", "amqp")
    shared_database.add_endpoint("billing", endpoint.url("/refusing/s3cret"), SECRET, retry=[0.1])
    port = free_port()
    shared_start("ingress", ingress_port=port)
    for command in ("ingest", "relay", "deliver"):
        shared_start(command)
    wait_for(lambda: is_ready(port))
    return f"http://127.0.0.1:{port}"


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_one_trace_leads_from_the_sender_through_a_retry_a_dead_letter_and_a_replay(
    servers, shared_database, ingress, endpoint, traces
) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-{SENDER}-01", "tracestate": "vendor=opaque", "idempotency-key": "order-1"}
    urllib.request.urlopen(urllib.request.Request(f"{ingress}/in/acme/shop", b'{"card":"kept private"}', headers), timeout=30)
    wait_for(lambda: "bury" in traces.names(trace))

    endpoint.release()
    cli = Cli(shared_database, servers.amqp_url)
    cli.output("dead", "replay", "--all", "--yes")
    wait_for(lambda: any(span.attributes.get("waxseal.outcome") == "delivered" for span in traces.of(trace)))

    wait_for(lambda: len(traces.of(trace)) == 11)  # each process exports its own
    spans = traces.of(trace)
    assert [
        ("POST /in/{tenant}/{source}", "server", "waxseal-ingress"),
        ("publish waxseal.received", "producer", "waxseal-ingress"),
        ("append", "consumer", "waxseal-ingest"),
        ("claim", "internal", "waxseal-deliver"),
        ("POST", "client", "waxseal-deliver"),
        ("claim", "internal", "waxseal-deliver"),
        ("POST", "client", "waxseal-deliver"),
        ("bury", "internal", "waxseal-deliver"),
        ("replay", "internal", "waxseal-deliver"),
        ("claim", "internal", "waxseal-deliver"),
        ("POST", "client", "waxseal-deliver"),
    ] == [(span.name, span.kind, span.service) for span in spans]
    request, publish, append, *_ = spans
    assert (SENDER, request.span_id, publish.span_id) == (request.parent_id, publish.parent_id, append.parent_id)
    buried = next(span for span in spans if span.name == "bury")
    later = [span for span in spans[3:] if span is not buried]
    assert {append.span_id} == {span.parent_id for span in later}

    attempts = [span for span in spans if span.name == "POST"]
    assert attempts[1].span_id == buried.parent_id
    assert [("500", 500), ("500", 500), (None, 200)] == [
        (span.attributes.get("error.type"), span.attributes["http.response.status_code"]) for span in attempts
    ]
    assert ["retry", "dead", "delivered"] == [span.attributes["waxseal.outcome"] for span in attempts]
    assert [None, 1, 2] == [span.attributes.get("http.request.resend_count") for span in attempts]
    requests = [each.headers for each in endpoint.requests if trace in each.headers["traceparent"]]
    assert [f"00-{trace}-{span.span_id}-01" for span in attempts] == [each["traceparent"] for each in requests]
    assert {"vendor=opaque"} == {each["tracestate"] for each in requests}
    assert {"vendor=opaque"} == {span.state for span in spans}
    batches = [span for span in traces.spans if (trace, publish.span_id) in span.links]
    assert ["process waxseal.ingest"] == [span.name for span in batches]
    claims = [span for span in spans if span.name == "claim"]
    assert {"claim batch"} == {name_of(traces, link) for span in claims for link in span.links}
    assert 3 == sum(len(span.links) for span in claims)
    assert [] == [each for each in ("kept private", "s3cret", SECRET) if each in repr(traces.spans)]
    shown = urllib.request.Request(f"{ingress}/metrics", headers={"Accept": "application/openmetrics-text"})
    assert f'trace_id="{trace}"' in urllib.request.urlopen(shown, timeout=30).read().decode()


def test_an_amqp_message_and_a_trace_that_begins_here_are_followed_as_well(
    servers, shared_database, ingress, endpoint, traces, channel
) -> None:
    endpoint.release()
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-{SENDER}-01", "tracestate": "vendor=opaque"}
    for name, given in (("with", headers), ("without", {})):
        properties = pika.BasicProperties(message_id=name, delivery_mode=2, headers=given)
        channel.basic_publish(IN, "acme.orders", b"{}", properties)
    wait_for(lambda: len(traces.of(trace)) == 3)

    append, claim, post = traces.of(trace)
    assert (SENDER, append.span_id, append.span_id) == (append.parent_id, claim.parent_id, post.parent_id)
    ((fingerprint,),) = shared_database.rows(
        "SELECT fingerprint FROM entry JOIN content USING (chain_id, seq) WHERE attributes LIKE %s", b'%"id":"without"%'
    )
    wait_for(lambda: len(traces.of(fingerprint.hex)) == 3)
    assert ["append", "claim", "POST"] == traces.names(fingerprint.hex)
    assert "" == traces.of(fingerprint.hex)[0].parent_id
    assert fingerprint.hex in {each.headers["traceparent"].split("-")[1] for each in endpoint.requests}


def name_of(traces: Collector, link: tuple[str, str]) -> str:
    found: list[Received] = []

    def is_there() -> bool:
        found[:] = [span for span in traces.spans if (span.trace_id, span.span_id) == link]
        return bool(found)

    wait_for(is_there)
    return found[0].name


def test_a_message_that_cannot_be_admitted_is_buried_and_replayed_in_its_trace(
    servers, shared_database, ingress, traces, channel
) -> None:
    trace = "b7ad6b7169203331b7ad6b7169203331"
    headers = {"traceparent": f"00-{trace}-{SENDER}-01"}
    channel.basic_publish(IN, "acme.nowhere", b"{}", pika.BasicProperties(message_id="lost", delivery_mode=2, headers=headers))
    wait_for(lambda: "bury" in traces.names(trace))
    Cli(shared_database, servers.amqp_url).output("dead", "replay", "--reason", "unknown_source", "--yes")
    wait_for(lambda: len(traces.of(trace)) == 3)

    assert ["bury", "replay", "bury"] == traces.names(trace)
    assert {SENDER} == {span.parent_id for span in traces.of(trace)}
    assert ["unknown_source", None, "unknown_source"] == [span.attributes.get("error.type") for span in traces.of(trace)]
