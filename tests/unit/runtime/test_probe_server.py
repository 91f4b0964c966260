import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse

import pytest

from ops.telemetry import probe_server
from ops.telemetry.probe_server import ProbeServer, serve
from ops.telemetry.probes import SECURITY_HEADERS, Readiness
from support.waiting import wait_for

Serve = Callable[..., ProbeServer]


@pytest.fixture
def start() -> Iterator[Serve]:
    servers: list[ProbeServer] = []

    def start_one(checks: Mapping[str, Callable[[], str | None]] | None = None, **limits: float) -> ProbeServer:
        servers.append(serve("127.0.0.1", 0, checks or {}, **limits))
        return servers[-1]

    yield start_one
    for server in servers:
        server.close()


def ask(server: ProbeServer, path: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def ready(server: ProbeServer) -> tuple[int, dict[str, object]]:
    response, body = ask(server, "/readyz")
    return response.status, json.loads(body)


def hang_on(event: threading.Event) -> None:
    event.wait(30)


def bug() -> str | None:
    raise RuntimeError("postgresql://wax:tulip@db")


def test_a_process_is_ready_when_every_check_passes(start: Serve) -> None:
    server = start({"database": lambda: None, "broker": lambda: None})

    assert (200, {"ready": True, "checks": {"database": "ok", "broker": "ok"}}) == ready(server)


def test_a_process_without_checks_is_ready(start: Serve) -> None:
    assert (200, {"ready": True, "checks": {}}) == ready(start())


def test_a_process_is_not_ready_while_one_check_gives_a_reason(start: Serve) -> None:
    server = start({"database": lambda: None, "broker": lambda: "in alarm"})

    assert (503, {"ready": False, "checks": {"database": "ok", "broker": "in alarm"}}) == ready(server)


def test_a_check_that_raises_is_named_by_its_error_without_its_text(start: Serve) -> None:
    assert (503, {"ready": False, "checks": {"database": "RuntimeError"}}) == ready(start({"database": bug}))


def test_a_hanging_check_is_not_ready_in_time_and_does_not_hide_the_others(start: Serve) -> None:
    forever = threading.Event()
    server = start({"database": lambda: hang_on(forever), "broker": lambda: None}, check_deadline=0.9)
    began = time.monotonic()
    status, body = ready(server)
    forever.set()

    assert (503, {"database": "no answer within 0.9 s", "broker": "ok"}) == (status, body["checks"])
    assert time.monotonic() - began < 20


def test_hanging_checks_do_not_pile_up_and_recover(start: Serve) -> None:
    forever, calls = threading.Event(), []

    def hang() -> None:
        calls.append(1)
        forever.wait(30)

    server = start({"database": hang}, check_deadline=0.1)
    statuses = [ready(server)[0] for _ in range(3)]
    asked = len(calls)
    forever.set()

    assert ([503, 503, 503], 1) == (statuses, asked)
    wait_for(lambda: ready(server)[0] == 200)


def test_what_is_noted_does_not_make_a_process_unready() -> None:
    noting = Readiness({"broker": lambda: None}, notes={"database": lambda: "an old configuration", "clock": lambda: None})
    answer = noting.answer()

    assert 200 == answer.status
    assert {"ready": True, "checks": {"broker": "ok"}, "notes": {"database": "an old configuration"}} == json.loads(answer.body)


def test_a_long_reason_is_cut(start: Serve) -> None:
    _, body = ready(start({"database": lambda: "x" * 5000}))

    assert {"database": "x" * 200} == body["checks"]


def test_a_process_is_alive_while_its_main_loop_beats(start: Serve) -> None:
    server = start(beat_limit=0.3)

    def beats() -> bool:
        server.beat()
        return ask(server, "/livez")[0].status == 200

    assert 200 == ask(start(beat_limit=60.0), "/livez")[0].status
    wait_for(lambda: ask(server, "/livez")[0].status == 503)
    wait_for(beats)


def test_metrics_are_served_in_the_text_format(start: Serve) -> None:
    response, body = ask(start(), "/metrics")

    assert (200, "text/plain; version=0.0.4; charset=utf-8") == (response.status, response.headers["Content-Type"])
    assert b"# TYPE " in body


def test_metrics_are_in_open_metrics_for_who_accepts_it(start: Serve) -> None:
    response, body = ask(start(), "/metrics", Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")

    assert "application/openmetrics-text; version=1.0.0; charset=utf-8" == response.headers["Content-Type"]
    assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize("path", ["/", "/livez/", "/readyz/../etc/passwd", "/metricsx"])
def test_other_paths_are_not_found(start: Serve, path: str) -> None:
    assert 404 == ask(start(), path)[0].status


def test_a_query_does_not_matter(start: Serve) -> None:
    assert 200 == ask(start(), "/livez?verbose=1")[0].status


def test_a_head_request_has_headers_and_no_body(start: Serve) -> None:
    response, body = ask(start(), "/livez", "HEAD")

    assert (200, b"") == (response.status, body)
    assert int(response.headers["Content-Length"]) > 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_other_methods_are_not_allowed(start: Serve, method: str) -> None:
    response, _ = ask(start(), "/livez", method)

    assert (405, "GET, HEAD") == (response.status, response.headers["Allow"])


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/nothing"])
def test_every_answer_has_the_security_headers_and_names_no_version(start: Serve, path: str) -> None:
    response, _ = ask(start(), path)

    assert dict(SECURITY_HEADERS) == {name: response.headers[name] for name in SECURITY_HEADERS}
    assert "waxseal" == response.headers["Server"].strip()


def test_what_is_not_http_is_refused_and_serving_goes_on(start: Serve) -> None:
    server = start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(b"\x16\x03\x01 what is this\r\n\r\n")
        answer = client.recv(1000)

    assert b" 400 " in answer.splitlines()[0]
    assert 200 == ask(server, "/livez")[0].status


def test_a_silent_client_is_cut_off(start: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_server._Handler, "timeout", 0.2)
    server = start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        assert b"" == client.recv(1)


def test_a_client_that_dribbles_is_cut_off_all_the_same(start: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_server, "_REQUEST_SECONDS", 0.5)
    server = start()
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client, suppress(OSError):
        while time.monotonic() - began < 20:
            client.sendall(b"x")
            time.sleep(0.05)

    assert time.monotonic() - began < 10


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it waits for the next look, half a second at most")
@pytest.mark.timeout(20)
def test_a_server_that_is_closed_does_not_wait_for_its_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_server, "_LOOK", 600.0)

    serve("127.0.0.1", 0, {}).close()


def test_slow_clients_cannot_take_more_than_their_share_of_threads(start: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_server, "_REQUEST_SECONDS", 1.0)
    before = set(threading.enumerate())
    server = start()
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(40)]
    time.sleep(0.3)
    threads = sum(thread.name.startswith("Thread-") for thread in set(threading.enumerate()) - before)
    for client in clients:
        client.close()

    assert threads <= probe_server._MAX_REQUESTS + 1
    assert 200 == ask(server, "/livez")[0].status


def test_a_taken_port_is_an_error_at_start(start: Serve) -> None:
    with pytest.raises(OSError, match="in use"):
        serve("127.0.0.1", start().port, {})


def test_closing_frees_the_port(start: Serve) -> None:
    server = serve("127.0.0.1", 0, {})
    server.close()

    assert server.port == serve_again(server.port)


def serve_again(port: int) -> int:
    again = serve("127.0.0.1", port, {})
    again.close()
    return again.port
