"""The spans themselves: what is exported, what log lines say, and what happens while the collector does not do its part."""

import json
import logging
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from opentelemetry.semconv._incubating.attributes import cloudevents_attributes, messaging_attributes
from opentelemetry.semconv.attributes import (
    error_attributes,
    http_attributes,
    network_attributes,
    server_attributes,
    url_attributes,
)

from ops.errors import Misconfigured
from ops.runtime.log import configure
from ops.telemetry.tracing import delivery_spans, ingest_spans, ingress_spans, mail_spans, publishing_spans, switch
from ops.telemetry.tracing import spans as spans_module
from ops.telemetry.tracing.harmless import harmless
from ops.telemetry.tracing.spans import Spans
from schemas.trace import TraceContext
from support.telemetry.otlp import collector
from support.waiting import wait_for

SPAN = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", sampled=True, state="vendor=opaque")


@pytest.fixture(autouse=True)
def _environment(monkeypatch) -> Iterator[None]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setattr(spans_module, "FLUSH_SECONDS", 0.1)
    yield
    switch.stop()


def tracing(endpoint: str, monkeypatch) -> Spans:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    switch.start("ingest")
    spans = switch.active()
    assert spans is not None
    return spans


def test_a_span_is_exported_with_all_that_it_says(monkeypatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    link = TraceContext("b" * 32, "c" * 16, sampled=True)
    with collector() as found:
        spans = tracing(found.endpoint, monkeypatch)
        spans.record("POST", SPAN, "a" * 16, (5, 9), {"n": 1, "s": "x"}, kind="client", links=[link] * 200, error="timeout")
        wait_for(lambda: found.spans)

    (span,) = found.spans
    assert ("waxseal-ingest", "POST", "client", SPAN.trace_id, SPAN.span_id, "a" * 16) == (
        *(span.service, span.name, span.kind, span.trace_id, span.span_id, span.parent_id),
    )
    assert ("vendor=opaque", (5, 9), True) == (span.state, span.times, span.failed)
    assert {"n": 1, "s": "x", "error.type": "timeout"} == span.attributes
    assert 128 * ((link.trace_id, link.span_id),) == span.links


def test_what_is_left_is_exported_at_the_end(monkeypatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    monkeypatch.setattr(spans_module, "FLUSH_SECONDS", 30.0)
    with collector() as found:
        tracing(found.endpoint, monkeypatch).record("append", SPAN, "", (5, 9), {})
        switch.stop()

        assert ["append"] == [span.name for span in found.spans]
    assert switch.active() is None


def test_a_service_can_be_named(monkeypatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    with collector() as found:
        tracing(found.endpoint, monkeypatch).record("append", SPAN, "", (5, 9), {})
        wait_for(lambda: found.spans)

    assert "ours" == found.spans[0].service


@contextmanager
def absent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@contextmanager
def hanging() -> Iterator[str]:
    """Takes connections and never answers, as a collector that is stopped."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def failing() -> Iterator[str]:
    with collector() as found:
        found.status = 500
        yield found.endpoint


@pytest.mark.parametrize("state", [absent, hanging, failing])
def test_a_collector_that_does_not_take_them_holds_nobody_up(state, monkeypatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "100")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
    with state() as endpoint:
        spans = tracing(endpoint, monkeypatch)
        done = threading.Event()

        def work() -> None:
            for _ in range(1000):
                spans.record("append", SPAN, "", (5, 9), {})
            switch.stop()
            done.set()

        threading.Thread(target=work, daemon=True).start()

        assert done.wait(30)
        assert len(spans._processor._batch_processor._queue) <= 100


def told(capsys: pytest.CaptureFixture[str], *events: str) -> list[dict[str, Any]]:
    """The log lines of these events: exporters of earlier tests log too."""
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    return [line for line in lines if line["event"] in events]


def test_log_lines_within_a_span_carry_its_ids(capsys) -> None:
    configure("json", "info", "ingest")
    unsampled = TraceContext("d" * 32, "e" * 16, sampled=False)
    log = structlog.get_logger()
    try:
        with switch.within(SPAN):
            log.info("one")
            with switch.within(TraceContext("b" * 32, "c" * 16, sampled=True)):
                logging.getLogger("library").warning("two")
            with switch.within(unsampled), switch.within(None):
                log.info("three")
            assert SPAN == switch.current()
        log.info("four")
    finally:
        structlog.reset_defaults()

    lines = told(capsys, "one", "two", "three", "four")
    own = (SPAN.trace_id, SPAN.span_id)
    assert [own, ("b" * 32, "c" * 16), own, (None, None)] == [(line.get("trace_id"), line.get("span_id")) for line in lines]
    assert switch.current() is None


def test_threads_do_not_share_a_span() -> None:
    found: list[TraceContext | None] = []
    with switch.within(SPAN):
        thread = threading.Thread(target=lambda: found.append(switch.current()))
        thread.start()
        thread.join()

    assert [None] == found


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_tracing_is_off_unless_a_collector_is_named(variables, monkeypatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    switch.start("ingest")

    assert switch.active() is None


def test_nothing_is_loaded_while_tracing_is_off() -> None:
    program = """
import sys
from ops.telemetry.tracing import delivery_spans, ingest_spans, ingress_spans, mail_spans, publishing_spans, switch
from ops.telemetry.tracing.harmless import harmless
switch.start("ingest")
print(switch.active(), [name for name in sys.modules if name.startswith("opentelemetry")])
"""
    ended = subprocess.run([sys.executable, "-c", program], env={}, capture_output=True, text=True, check=True, timeout=60)

    assert "None []\n" == ended.stdout


def test_a_sampler_that_does_not_exist_stops_the_process(monkeypatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "sometimes")

    with pytest.raises(Misconfigured, match="OTEL_TRACES_SAMPLER"):
        switch.start("ingest")


def test_a_span_that_cannot_be_recorded_does_not_fail_its_step(capsys) -> None:
    def fail(*_: object) -> None:
        raise ValueError("odd")

    configure("json", "info", "ingest")
    try:
        assert harmless(fail)(1) is None
    finally:
        structlog.reset_defaults()

    (line,) = told(capsys, "span_not_recorded")
    assert ("span_not_recorded", "error", "ValueError('odd')") == (line["event"], line["level"], line["error"])


def test_every_step_is_harmless() -> None:
    """What workers call while they hold messages: a span that raises would have a batch recorded again, and then buried."""
    steps = [
        *(ingest_spans.committed, ingest_spans.buried, ingress_spans.receiving, ingress_spans.refused),
        *(ingress_spans.Receiving.record, mail_spans.Pull.publishing, mail_spans.Pull.published, mail_spans.Pull.record),
        *(delivery_spans.claiming, delivery_spans.claimed, delivery_spans.attempt, delivery_spans.begun),
        *(delivery_spans.attempted, delivery_spans.buried, publishing_spans.replaying, publishing_spans.replayed),
    ]

    assert [] == [step for step in steps if not hasattr(step, "__wrapped__")]


CONVENTIONS = (
    cloudevents_attributes,
    messaging_attributes,
    error_attributes,
    http_attributes,
    network_attributes,
    server_attributes,
    url_attributes,
)


def test_attributes_have_the_names_of_the_semantic_conventions() -> None:
    folder = Path(spans_module.__file__ or "").parent
    used = {name for path in folder.glob("*_spans.py") for name in re.findall(r'"([a-z]+(?:\.[a-z_]+)+)"', path.read_text())}
    known = {value for module in CONVENTIONS for value in vars(module).values() if isinstance(value, str)}

    # The first is in the conventions of HTTP, but not in the part of the package that is stable.
    assert {"http.request.body.size"} == {name for name in used if not name.startswith("waxseal.")} - known
