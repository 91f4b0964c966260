"""The HTTP client against malicious servers, and against old ones."""

import asyncio
import socket
import struct
import time
from dataclasses import replace

import pytest

from schemas.delivery import Receipt
from schemas.endpoint import Endpoint
from support.net.wire import Script, Wire, answers, wire
from support.sending import LOCAL, PUBLIC, receipts, run, sample, to
from support.waiting import wait_for
from workers.transports import http1, http_connections
from workers.transports.http import HttpSender
from workers.transports.http_connections import NotAUrl, destination

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def sent(endpoint: Endpoint, seconds: float = 30.0) -> Receipt:
    (receipt,) = receipts(HttpSender, [endpoint], seconds=seconds)
    return receipt


def once(raw: bytes) -> Script:
    """Answers one request with these bytes, and closes."""

    async def script(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await wire.request(reader)
        writer.write(raw)
        await writer.drain()

    return script


def floods(raw: bytes, drop: bytes) -> Script:
    """Answers with `raw`, and then with `drop` for as long as the client reads."""

    async def script(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await wire.request(reader)
        # The kernel would buffer megabytes while a busy machine keeps the client from reading.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        writer.write(raw)
        while not writer.is_closing():
            writer.write(drop)
            await writer.drain()
            wire.notes.append(len(drop))

    return script


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"


@pytest.mark.parametrize(
    ("raw", "drop"),
    [
        (CHUNKED + b"0\r\nX-A: ", b"x" * 65536),
        (CHUNKED + b"0\r\n", b"X-A: b\r\n" * 8192),
        (CHUNKED + b"5;a=", b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\nX-A: ", b"x" * 65536),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 1500),
    ],
    ids=["a trailer", "trailers", "an extension of a chunk", "a header", "interim answers"],
)
def test_of_what_is_no_body_only_so_much_is_taken(raw, drop, lateness) -> None:
    with wire(floods(raw, drop)) as server:
        receipt = sent(to(server.url()), seconds=20)

    assert "protocol" == receipt.error
    assert receipt.duration < 5 + lateness()
    assert sum(server.notes) < 64 * http1.HEAD_BYTES  # includes what the kernel's buffers hold


@pytest.mark.parametrize(
    ("raw", "response"),
    [
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nX-A: b\x01c\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nok\r\n0\r\n\r\n", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", b"ok"),
        (OK + b"\r\n", b"ok"),
    ],
    ids=["bare LF", "folded header", "control character", "space after a chunk's size", "not chunked", "a line more"],
)
def test_a_server_that_is_old_or_sloppy_is_understood(raw, response) -> None:
    with wire(once(raw)) as server:
        receipt = sent(to(server.url()))

    assert (None, 200, response) == (receipt.error, receipt.status, receipt.response)


@pytest.mark.parametrize(
    "hint",
    [
        "Mon, 01 Jan 2024 00:00:00 +99999999999999999999",
        "1 Jan 2024 99999999999999999999:0:0",
        "1 Jan 99999999999999999999 0:0",
        "9" * 5000,
    ],
)
def test_a_retry_after_beyond_measure_is_an_answer_all_the_same(hint) -> None:
    raw = b"HTTP/1.1 503 x\r\nRetry-After: %b\r\nContent-Length: 0\r\n\r\n" % hint.encode()
    with wire(answers(raw)) as server:
        receipt = sent(to(server.url()))

    assert ("status", 503) == (receipt.error, receipt.status)


def test_a_connection_that_its_server_ends_is_not_lent_from_that_moment_on(monkeypatch) -> None:
    """The transport reports EOF first, and the lost connection some callbacks later."""

    def later(self: http1.HttpConnection, error: Exception | None) -> None:
        self._loop.call_later(0.5, lost, self, error)

    lost = http1.HttpConnection.connection_lost
    monkeypatch.setattr(http1.HttpConnection, "connection_lost", later)

    async def main(sender: HttpSender) -> list[Receipt]:
        first = await sender.send(to(server.url()), sample(), 30.0)
        await asyncio.sleep(0.1)
        return [first, await sender.send(to(server.url()), sample(), 30.0)]

    with wire(once(OK)) as server:
        found = run(HttpSender, main)

    assert [(None, False)] * 2 == [(receipt.error, receipt.reused) for receipt in found]


def only_first(second: bytes) -> Script:
    """Answers the first request of each connection; answers the second with these bytes and closes."""

    async def script(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for raw in (OK, second):
            await wire.request(reader)
            writer.write(raw)
            await writer.drain()

    return script


async def twice(sender: HttpSender, url: str) -> list[Receipt]:
    return [await sender.send(to(url), sample(), 30.0) for _ in range(2)]


def test_what_a_kept_connection_does_not_answer_at_all_is_sent_over_a_new_one() -> None:
    """A server that closes an idle connection cannot know whether a request is on its way."""
    with wire(only_first(b"")) as server:
        found = run(HttpSender, lambda sender: twice(sender, server.url()))

    assert [(None, False)] * 2 == [(receipt.error, receipt.reused) for receipt in found]
    assert (2, 3) == (server.connections, len(server.heads))


@pytest.mark.parametrize("beginning", [b"H", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no"])
def test_what_a_kept_connection_has_begun_to_answer_is_not_sent_again(beginning) -> None:
    with wire(only_first(beginning)) as server:
        found = run(HttpSender, lambda sender: twice(sender, server.url()))

    assert [(None, False), ("reset", True)] == [(receipt.error, receipt.reused) for receipt in found]
    assert (1, 2) == (server.connections, len(server.heads))


@pytest.mark.parametrize(("first", "second"), [(30.0, 0.5), (1.5, 2.0)])
def test_each_request_on_a_kept_connection_has_its_own_deadline(first, second) -> None:
    """The connection's timer is set only once, for the first request."""

    async def script(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await wire.request(reader)
        writer.write(OK)
        await wire.request(reader)
        await asyncio.sleep(30)

    async def both(sender: HttpSender) -> list[Receipt]:
        return [await sender.send(to(server.url()), sample(), seconds) for seconds in (first, second)]

    with wire(script) as server:
        found = run(HttpSender, both)

    assert [(None, False), ("timeout", True)] == [(receipt.error, receipt.reused) for receipt in found]
    assert second <= found[1].duration < 10


def test_what_a_new_connection_does_not_answer_is_a_failure() -> None:
    with wire(once(b"")) as server:
        receipt = sent(to(server.url()))

    assert ("reset", False, 1) == (receipt.error, receipt.reused, len(server.heads))


def test_a_connection_that_is_reset_before_it_is_looked_at_is_a_failure_of_the_endpoint(monkeypatch) -> None:
    async def resets(_wire: Wire, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def slowly(*addresses: object, **options: object) -> socket.socket:
        made = await start(*addresses, **options)  # type: ignore[arg-type]
        time.sleep(0.15)  # noqa: ASYNC251 - the reset arrives while the loop is blocked
        return made

    async def main(sender: HttpSender) -> Receipt:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        return await sender.send(to(server.url()), sample(), 30.0)

    complaints: list[object] = []
    start = http_connections.start_connection
    monkeypatch.setattr(http_connections, "start_connection", slowly)
    with wire(resets) as server:
        receipt = run(HttpSender, main)

    assert ("reset", []) == (receipt.error, complaints)
    assert f"127.0.0.1:{server.port}" == receipt.address


@pytest.mark.parametrize(
    "url",
    [
        *("http://a b/", "http://127.0.0.1%00.x/", "http://%31%32%37.0.0.1/", "http://a%20b/", "http://h;x/", "http://a\\b/"),
        *("http://[::1%25a%0d%0ab]/", "http://[::1%25a%25b]/", "http://h'x/"),
    ],
)
def test_a_host_that_is_neither_name_nor_address_is_not_called(url) -> None:
    with pytest.raises(NotAUrl):
        destination(url)


@pytest.mark.parametrize(
    ("url", "host", "authority"),
    [
        ("http://[fe80::1%25eth0]/", "fe80::1%eth0", "[fe80::1]"),
        ("http://[FE80::1%25eth0]:8080/", "fe80::1%eth0", "[fe80::1]:8080"),
        ("http://Billing.Example./", "billing.example.", "billing.example"),
        ("https://b_1.example:8443/", "b_1.example", "b_1.example:8443"),
        ("https://bücher.example/", "xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("http://127.1/", "127.1", "127.1"),
    ],
)
def test_a_zone_or_a_trailing_dot_is_for_the_look_up_alone(url, host, authority) -> None:
    found = destination(url)

    assert (host, authority) == (found.host, found.authority)


def test_zones_hide_no_address_from_a_proxys_guard() -> None:
    with wire(answers(OK)) as proxy:
        endpoints = [to("http://[::1%25a%25b]/"), to("http://[::1%25a]/"), to("https://[::ffff:127.0.0.1%25a]/")]
        terms = replace(PUBLIC, proxy=f"http://127.0.0.1:{proxy.port}")
        found = receipts(HttpSender, endpoints, terms)

    assert ["url", "refused_address", "refused_address"] == [receipt.error for receipt in found]
    assert 0 == proxy.connections


def test_tries_that_are_given_up_leave_no_socket_and_no_complaint() -> None:
    """They end in a handshake, while waiting for an answer, amid a large body, and in a proxy's tunnel."""
    complaints: list[object] = []

    async def silent(wire: Wire, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n") if wire is plain else None
        await asyncio.sleep(0.5)
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass
        wire.notes.append("closed")

    async def tunnels(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await wire.request(reader)
        writer.write(b"HTTP/1.1 200 ok\r\n\r\n")
        await silent(wire, reader, writer)

    async def main(sender: HttpSender) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        bodies = sample(), sample(b"x" * 9_000_000)
        tries = [asyncio.ensure_future(sender.send(to(url), body, seconds)) for body in bodies for seconds in (1.0, 30.0)]
        await asyncio.to_thread(wait_for, lambda: server.connections == len(tries))
        await asyncio.wait(tries, timeout=1.5)  # the deadlines of two end; the other two are cancelled
        for each in tries:
            each.cancel()
        await asyncio.gather(*tries, return_exceptions=True)
        await asyncio.to_thread(wait_for, lambda: len(server.notes) == len(tries))

    with wire(silent) as plain, wire(tunnels) as proxy:
        server, url = plain, plain.url()
        run(HttpSender, main)
        server, url = proxy, proxy.url("https").replace("127.0.0.1", "localhost")
        run(HttpSender, main, replace(LOCAL, proxy=f"http://127.0.0.1:{proxy.port}"))

    assert ["closed"] * 4 == plain.notes
    assert ["closed"] * 4 == proxy.notes
    assert [] == complaints
