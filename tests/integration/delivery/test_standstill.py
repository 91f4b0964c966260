"""A process that was stopped, or whose machine was paused, does not continue a delivery whose lease has ended."""

import json
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from schemas.config.amqp_target import AmqpTarget
from schemas.config.smtp_target import SmtpTarget
from schemas.endpoint import Endpoint
from support.deliveries import event, record
from support.net.post import Post, post_office
from support.net.sink import Sink
from support.net.tls import Authority
from support.queues import depth
from support.sending import LOCAL, SECRET, run, sample, to
from support.waiting import wait_for
from workers.net.lease_deadline import Check, LeaseEnd, LeaseEnded, lease_end
from workers.transports.amqp import AmqpSender
from workers.transports.http import HttpSender
from workers.transports.smtp import SmtpSender

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Slow:
    """A TLS server that answers; the handshake of its first connection waits until `go_on` is set."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.go_on = threading.Event()
        self.connections = 0
        self.first_ended = threading.Event()
        self.seqs: list[int] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                raw, _address = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self.serve, args=(raw, self.connections == 1), daemon=True).start()

    def serve(self, raw: socket.socket, first: bool) -> None:
        with suppress(OSError):
            if first:
                self.go_on.wait(120)
            with self.context.wrap_socket(raw, server_side=True) as connection, connection.makefile("rb") as stream:
                while stream.readline():
                    lines = iter(stream.readline, b"\r\n")
                    said = dict(line.decode().strip().lower().split(": ", 1) for line in lines)
                    stream.read(int(said["content-length"]))
                    self.seqs.append(int(said["ce-chainseq"]))
                    connection.sendall(ANSWER)
        if first:
            self.first_ended.set()


@contextmanager
def slow(authority: Authority) -> Iterator[Slow]:
    server = Slow(authority.server("127.0.0.1"))
    try:
        yield server
    finally:
        server.go_on.set()
        server.listener.shutdown(socket.SHUT_RDWR)  # closing does not wake the thread that accepts
        server.listener.close()


def test_a_process_that_was_stopped_sends_nothing_under_a_lease_that_has_ended(database, engine, start) -> None:
    authority = Authority()
    database.add_tenant()
    with slow(authority) as server:
        sealed = database.vault.encrypt(json.dumps({"ca": authority.ca}).encode()).decode()
        url = f"https://127.0.0.1:{server.port}/"
        database.add_endpoint("in-order", url, SECRET, ordered=True, timeout=60, sealed=sealed)
        start("relay", lease=5)
        stopped = start("deliver", lease=5, delivery_threads=1)
        record(engine, [event(f"e-{n}", "one") for n in range(4)], ordered=True)
        wait_for(lambda: server.connections == 1)

        stopped.send_signal(signal.SIGSTOP)
        start("deliver", lease=5)
        wait_for(lambda: [(4,)] == database.rows("SELECT count(*) FROM delivery WHERE state = 'delivered'"), 120)
        stopped.send_signal(signal.SIGCONT)
        server.go_on.set()
        assert server.first_ended.wait(30)

    assert [0, 1, 2, 3] == server.seqs


def ending(at: int) -> Check:
    """A lease check that passes until the `at`-th call, which finds the lease ended."""
    asked = iter(range(1, 100))

    def check() -> None:
        if next(asked) == at:
            raise LeaseEnded

    return check


@pytest.mark.parametrize(("at", "connections"), [(1, 0), (2, 1)], ids=["before it connected", "while it connected"])
def test_no_request_is_made_when_the_lease_ends(sink: Sink, at, connections) -> None:
    with pytest.raises(LeaseEnded):
        run(HttpSender, lambda sender: sender.send(to(sink.url("/200")), sample(), 5.0, ending(at)))

    wait_for(lambda: connections == sink.connections)
    assert [] == sink.requests


def test_no_request_is_repeated_on_a_new_connection_when_the_lease_ends(sink: Sink) -> None:
    async def main(sender: HttpSender) -> None:
        await sender.send(to(sink.url("/once_closed")), sample(), 5.0)
        await sender.send(to(sink.url("/closed")), sample(), 5.0, ending(2))

    with pytest.raises(LeaseEnded):
        run(HttpSender, main)  # type: ignore[arg-type]

    assert {"/once_closed"} <= {request.path for request in sink.requests}
    assert sink.connections <= 2


def test_no_mail_is_handed_over_when_the_lease_ends() -> None:
    with post_office(Post()) as post:
        target = SmtpTarget(host="127.0.0.1", port=post.port, security="none", sender="shop@acme.example", to=("a@b.example",))
        endpoint = Endpoint(1, "acme", "mail", "", transport="smtp", target=target)
        with pytest.raises(LeaseEnded):
            run(SmtpSender, lambda sender: sender.send(endpoint, sample(), 20.0, ending(1)))

        assert 1 == len(post.sessions)
        assert [] == post.taken


def test_nothing_is_published_when_the_lease_ends(servers, channel: BlockingChannel) -> None:
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, "amq.topic", "#")
    bus = Endpoint(1, "acme", "bus", "", transport="amqp", target=AmqpTarget("amq.topic", "any"))

    async def main(sender: AmqpSender) -> None:
        with pytest.raises(LeaseEnded):
            await sender.send(bus, sample(), 10.0, ending(1))
        await sender.send(bus, sample(number=8), 10.0)

    run(AmqpSender, main, replace(LOCAL, amqp_url=servers.amqp_url))  # type: ignore[arg-type]

    assert 1 == depth(channel, queue)


def test_a_lease_ends_by_the_clock_that_is_there_first(monkeypatch) -> None:
    ends = lease_end(time.time() + 100)
    assert not ends.is_past
    assert LeaseEnd(time.time() - 1, ends.deadline).is_past, "the clock on the wall"

    booted = time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda clock: booted(clock) + 101)
    assert ends.is_past, "the machine slept, and its clock on the wall was set back"
