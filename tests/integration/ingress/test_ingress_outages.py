import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
from prometheus_client import REGISTRY

from ops.servers.private import PrivateServers
from ops.settings import environment
from support.broker import alarm, broker_stopped
from support.ingress import Answer, Ingress, drain, empty_inbox, parsed, read_all, running
from support.net.ports import free_port
from support.waiting import wait_for

pytestmark = pytest.mark.usefixtures("durable")

POST = b"POST /in/acme/open HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture(scope="module")
def configured(shared_database: Any) -> Any:
    shared_database.add_tenant("acme")
    shared_database.add_source("open", "none")
    return shared_database


@pytest.fixture(autouse=True)
def _emptied(servers: PrivateServers) -> None:
    empty_inbox(servers.amqp_url)


@pytest.fixture
def ingress(configured: Any, servers: PrivateServers) -> Iterator[Ingress]:
    with running(configured.worker_url, configured.vault, servers.amqp_url) as one:
        wait_for(lambda: one.ready)
        yield one


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def timed(ingress: Ingress) -> tuple[Answer, float]:
    began = time.monotonic()
    return ingress.post("open"), time.monotonic() - began


def seconds_until(condition: Callable[[], bool]) -> float:
    began = time.monotonic()
    wait_for(condition)
    return time.monotonic() - began


def alarmed(resource: str) -> float | None:
    return REGISTRY.get_sample_value("waxseal_broker_alarm", {"resource": resource})


def is_unavailable(answer: Answer) -> bool:
    assert "application/problem+json" == answer.headers["content-type"]
    assert "urn:waxseal:problem:unavailable" == answer.json["type"]
    return (503, "5") == (answer.status, answer.headers["retry-after"])


def test_without_a_broker_a_message_is_refused_at_once_until_it_is_back_and_none_that_was_accepted_is_lost(
    ingress: Ingress, servers: PrivateServers, lateness: Callable[[], float]
) -> None:
    accepted = posted(ingress, range(30))
    with broker_stopped(servers):
        answer, seconds = timed(ingress)
        ready = ingress.ask("GET", "/readyz")
        alive = ingress.ask("GET", "/livez")

        assert is_unavailable(answer)
        assert seconds < 0.5 + lateness()
        assert (503, "not connected") == (ready.status, ready.json["checks"]["broker"])
        assert 200 == alive.status
    wait_for(lambda: ingress.ready)
    accepted += posted(ingress, range(30, 60))

    assert [str(number) for number in range(60)] == accepted
    assert {*accepted} == {message.message_id for _, message in drain(servers.amqp_url)}


def posted(ingress: Ingress, numbers: range) -> list[str]:
    """Posts a message with each number as its id; gives the ids that were accepted."""
    answers = [ingress.post("open", b"{}", {"idempotency-key": str(number)}) for number in numbers]
    return [answer.json["id"] for answer in answers if answer.status == 202]


def test_a_broker_that_hangs_is_waited_for_five_seconds_and_no_longer(
    ingress: Ingress, servers: PrivateServers, lateness: Callable[[], float]
) -> None:
    with frozen(servers.rabbitmq_pid):
        answer, seconds = timed(ingress)
        ready = ingress.ask("GET", "/readyz")

        assert is_unavailable(answer)
        assert 4.9 < seconds < 5.5 + lateness()
        assert 503 == ready.status
    wait_for(lambda: ingress.ready)
    assert 202 == ingress.post("open").status


def test_in_an_alarm_messages_are_refused_and_taken_again_when_it_is_over(
    ingress: Ingress, servers: PrivateServers, lateness: Callable[[], float]
) -> None:
    with alarm(servers):
        answer, seconds = timed(ingress)
        while answer.status == 202:  # the broker takes a moment to act on its alarm
            answer, seconds = timed(ingress)
        wait_for(lambda: not ingress.ready)
        later, later_seconds = timed(ingress)
        ready = ingress.ask("GET", "/readyz")

        assert is_unavailable(answer)
        assert seconds < 5.5 + lateness()
        assert is_unavailable(later)
        assert later_seconds < 0.5 + lateness()
        assert "the broker is in alarm: low on memory" == ready.json["checks"]["broker"]
        assert (1, 0) == (alarmed("memory"), alarmed("disk"))
    wait_for(lambda: ingress.ready)
    assert 0 == alarmed("memory")
    assert 202 == ingress.post("open").status


def test_a_change_of_the_configuration_takes_effect_within_a_second(
    ingress: Ingress, configured: Any, lateness: Callable[[], float]
) -> None:
    assert 404 == ingress.post("fresh").status
    configured.add_source("fresh", "none")
    assert seconds_until(lambda: ingress.post("fresh").status == 202) < 1.0 + lateness()
    with configured.connect() as conn:
        conn.execute("DELETE FROM source WHERE name = 'fresh'")
    assert seconds_until(lambda: ingress.post("fresh").status == 404) < 1.0 + lateness()


def test_without_postgres_messages_are_taken_with_the_configuration_as_it_was(
    ingress: Ingress, servers: PrivateServers, configured: Any
) -> None:
    os.kill(servers.postgres_pid, signal.SIGQUIT)
    try:
        for _ in range(10):
            assert 202 == ingress.post("open").status
            time.sleep(0.1)
        assert ingress.ready
    finally:
        servers.restart_postgres()
    configured.add_source("later", "none")
    wait_for(lambda: ingress.post("later").status == 202)


def test_before_the_configuration_was_read_messages_are_refused_as_unavailable(
    configured: Any, servers: PrivateServers
) -> None:
    with frozen_postgres(servers), running(configured.worker_url, configured.vault, servers.amqp_url) as starting:
        answer = starting.post("open")
        ready = starting.ask("GET", "/readyz")
        os.kill(servers.postgres_pid, signal.SIGCONT)
        wait_for(lambda: starting.post("open").status == 202)

        assert is_unavailable(answer)
        assert (503, "not read yet") == (ready.status, ready.json["checks"]["catalog"])


@contextmanager
def frozen_postgres(servers: PrivateServers) -> Iterator[None]:
    """Stops only the postmaster: logging in hangs."""
    with frozen(servers.postgres_pid):
        yield


# The process.


@contextmanager
def process(configured: Any, servers: PrivateServers) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    settings = {
        "WAXSEAL_DATABASE_URL": configured.worker_url,
        "WAXSEAL_AMQP_URL": servers.amqp_url,
        "WAXSEAL_KEYS": configured.key,
        "WAXSEAL_INGRESS_PORT": str(port),
        "WAXSEAL_LOG": "json",
    }
    running_one = subprocess.Popen(
        [sys.executable, "-m", "ops.cli", "ingress"], env=environment() | settings, stderr=subprocess.PIPE
    )
    try:
        wait_for(lambda: answers(port))
        yield running_one, port
    finally:
        running_one.kill()
        running_one.communicate()


def answers(port: int) -> bool:
    try:
        return parsed(request(port, b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).status == 200
    except OSError:
        return False


def request(port: int, raw: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(raw)
        return read_all(connection)


@contextmanager
def begun(port: int) -> Iterator[socket.socket]:
    """A request of which the process has read the head; the body is `{}`."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(POST.removesuffix(b"\r\n{}") + b"Expect: 100-continue\r\n\r\n")
        assert b"HTTP/1.1 100 Continue\r\n\r\n" == connection.recv(4096)
        yield connection


def test_a_process_is_small_and_finishes_what_it_has_begun_when_it_is_told_to_stop(
    configured: Any, servers: PrivateServers
) -> None:
    with process(configured, servers) as (ingress, port):
        for _ in range(20):
            assert 202 == parsed(request(port, POST)).status
        rss = psutil.Process(ingress.pid).memory_info().rss
        drain(servers.amqp_url)
        idle = socket.create_connection(("127.0.0.1", port), timeout=30)
        with frozen(servers.rabbitmq_pid), begun(port) as connection:
            connection.sendall(b"{}")
            ingress.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            still_running = ingress.poll() is None
            os.kill(servers.rabbitmq_pid, signal.SIGCONT)
            answer = parsed(read_all(connection))
        code = ingress.wait(30)
        idle.close()

    assert rss < 150 * 2**20
    assert (True, 202, 0) == (still_running, answer.status, code)
    assert [answer.json["id"]] == [message.message_id for _, message in drain(servers.amqp_url)]


def test_a_process_stops_in_a_few_seconds_though_a_request_never_ends(
    configured: Any, servers: PrivateServers, lateness: Callable[[], float]
) -> None:
    with process(configured, servers) as (ingress, port), begun(port) as slow:
        slow.sendall(b"{")
        ingress.send_signal(signal.SIGTERM)
        answer = parsed(read_all(slow))
        began = time.monotonic()
        code = ingress.wait(30)
        took = time.monotonic() - began

    assert is_unavailable(answer)
    assert 0 == code
    assert took < 3 + lateness()
