"""The HTTP sender against all kinds of server behaviour: each try ends in time, with the right error."""

import asyncio
import base64
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from schemas.delivery import Receipt
from schemas.endpoint import Endpoint
from support.net.tls import Authority
from support.net.wire import Script, Wire, answers, wire
from support.sending import SECRET, receipts, run, sample, to
from support.waiting import wait_for
from workers.transports import http_connections
from workers.transports.http import KEPT, READ, HttpSender

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SECONDS = 0.5

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def sent(endpoint: Endpoint, seconds: float = 30.0, **options: object) -> Receipt:
    (receipt,) = receipts(HttpSender, [endpoint], seconds=seconds, **options)  # type: ignore[arg-type]
    return receipt


async def silent(_wire: Wire, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Reads everything and sends nothing."""
    while await reader.read(65536):
        pass


def begins(raw: bytes) -> Script:
    """Answers with these bytes, and then sends nothing more."""

    async def script(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await wire.request(reader)
        writer.write(raw)
        await silent(wire, reader, writer)

    return script


def drips(raw: bytes, drop: bytes) -> Script:
    """Answers with these bytes, and then with a few bytes at a time."""

    async def script(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await wire.request(reader)
        writer.write(raw)
        while True:
            await asyncio.sleep(0.02)
            writer.write(drop)
            await writer.drain()

    return script


def cuts(raw: bytes) -> Script:
    """Answers with these bytes, and then resets the connection."""

    async def script(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await wire.request(reader)
        writer.write(raw)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()

    return script


UNENDING = {
    "silence": (silent, None),
    "half a line": (begins(b"HTTP/1.1"), None),
    "half a head": (begins(b"HTTP/1.1 200 OK\r\nX-A: b\r\n"), None),
    "half a body": (begins(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), 200),
    "half a chunk": (begins(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwh"), 200),
    "no length": (begins(b"HTTP/1.1 200 OK\r\n\r\nuntil the end"), 200),
    "half an error": (begins(b"HTTP/1.1 500 x\r\nContent-Length: 10\r\n\r\nhalf"), 500),
    "100": (begins(b"HTTP/1.1 100 Continue\r\n\r\n"), None),
    "drops of a head": (drips(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"), None),
    "drops of a body": (drips(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"), 200),
    "drops of chunks": (drips(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"), 200),
    "103 for ever": (drips(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), None),
}


def test_whatever_does_not_end_ends_at_the_deadline(lateness) -> None:
    seconds = 2.0  # one deadline for all, sent to at once
    with ExitStack() as running:
        servers = [running.enter_context(wire(script)) for script, _status in UNENDING.values()]
        found = receipts(HttpSender, [to(server.url()) for server in servers], seconds=seconds)

    for (what, (_script, status)), server, receipt in zip(UNENDING.items(), servers, found, strict=True):
        assert ("timeout", status) == (receipt.error, receipt.status), what
        assert seconds <= receipt.duration < seconds + 0.3 + lateness(), what
        assert receipt.first_byte is not None, what
        assert f"127.0.0.1:{server.port}" == receipt.address, what


@contextmanager
def deaf() -> Iterator[int]:
    """A port whose accept queue is full: further connections are neither accepted nor refused."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
            waiting.append(one)
        time.sleep(0.05)
        yield listening.getsockname()[1]
        for one in waiting:
            one.close()


def test_a_connection_that_is_not_made_ends_at_the_deadline(lateness) -> None:
    with deaf() as port:
        receipt = sent(to(f"http://127.0.0.1:{port}/"), SECONDS)

    assert ("timeout", None, None, None) == (receipt.error, receipt.dns, receipt.tls, receipt.first_byte)
    assert SECONDS - 0.1 - lateness() <= receipt.connect < SECONDS + 0.1 + lateness()
    assert (f"127.0.0.1:{port}", None) == (receipt.address, receipt.reused)


def test_tls_that_is_not_made_ends_at_the_deadline(lateness) -> None:
    with wire(silent) as server:
        receipt = sent(to(server.url("https")), SECONDS)

    assert ("timeout", None, None) == (receipt.error, receipt.dns, receipt.first_byte)
    assert SECONDS - 0.1 - lateness() <= receipt.tls < SECONDS + 0.1 + lateness()
    assert receipt.connect is not None
    assert receipt.connect < 0.1 + lateness()


def test_a_look_up_that_is_not_answered_ends_at_the_deadline(lateness) -> None:
    def slow(*_asked: object) -> list:
        time.sleep(2 * SECONDS)
        return []

    async def main(sender: HttpSender) -> Receipt:
        sender._dialler._look_up = slow
        return await sender.send(to("http://slow.example/"), sample(), SECONDS)

    receipt = run(HttpSender, main)

    assert ("timeout", None, None, None) == (receipt.error, receipt.connect, receipt.address, receipt.reused)
    assert SECONDS - 0.1 - lateness() <= receipt.dns < SECONDS + 0.1 + lateness()


def test_look_ups_that_hang_do_not_hold_up_others() -> None:
    over = threading.Event()

    def slow(host: str, port: int, *_options: object) -> list:
        if host.startswith("slow"):
            over.wait(60)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async def main(sender: HttpSender) -> list[Receipt]:
        sender._dialler._look_up = slow
        hanging = [to(f"http://slow-{n}.example:{server.port}/") for n in range(20)]
        others = [to(f"http://fast-{n}.example:{server.port}/") for n in range(5)]
        seconds = 4 * SECONDS
        found = await asyncio.gather(*(sender.send(each, sample(), seconds) for each in hanging + others))
        over.set()
        return found

    with wire(answers(OK)) as server:
        found = run(HttpSender, main)

    assert ["timeout"] * 20 + [None] * 5 == [receipt.error for receipt in found]


@pytest.mark.parametrize(
    ("raw", "error", "status"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "reset", 200),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwh", "reset", 200),
        (b"HTTP/1.1 200 OK\r\nX-A: b", "reset", None),
        (b"", "reset", None),
    ],
    ids=["body", "chunk", "head", "nothing"],
)
def test_a_cut_connection_is_a_failure(raw, error, status) -> None:
    with wire(cuts(raw)) as server:
        receipt = sent(to(server.url()))

    assert (error, status) == (receipt.error, receipt.status)


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX-Huge: " + b"x" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: x\r\n" % n for n in range(100_000)) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nok",
        b"HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n" + OK,
    ],
    ids=[
        *("ssh", "tls", "no status", "negative", "two lengths", "no chunk", "huge header", "many headers", "no header", "more"),
        "two answers",
    ],
)
def test_what_is_no_http_is_a_failure_of_the_protocol(raw) -> None:
    with wire(begins(raw)) as server:
        receipt = sent(to(server.url()), seconds=5)

    assert receipt.error in ("protocol", "reset")  # "reset" if it happens in the body
    assert receipt.duration < 5


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (OK, (None, 200, b"ok")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (None, 204, b"")),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", (None, 200, b"ok")),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", (None, 200, b"ok")),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, (None, 200, b"ok")),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 + OK, (None, 200, b"ok")),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok", (None, 200, b"ok")),
        (b"HTTP/1.1 500 x\r\nContent-Length: 2\r\n\r\nno", ("status", 500, b"no")),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", ("status", 101, b"")),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", ("redirect", 304, b"")),
        (b"HTTP/1.1 999 x\r\nContent-Length: 0\r\n\r\n", ("status", 999, b"")),
    ],
    ids=["200", "204", "1.0", "chunked", "100", "103", "gzip", "500", "101", "304", "999"],
)
def test_an_answer_is_what_its_status_says(raw, expected) -> None:
    with wire(answers(raw)) as server:
        receipt = sent(to(server.url()))

    assert expected == (receipt.error, receipt.status, receipt.response)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_loop_is_not_entered(status) -> None:
    with wire(answers(b"HTTP/1.1 %d x\r\nLocation: /hooks\r\nContent-Length: 0\r\n\r\n" % status)) as server:
        receipt = sent(to(server.url()))

    assert ("redirect", status, 1) == (receipt.error, receipt.status, len(server.heads))


def test_of_an_endless_answer_a_little_is_read_and_less_is_kept() -> None:
    written = 0

    async def endless(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await wire.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            await writer.drain()
            written += 4096

    with wire(endless) as server:
        receipt = sent(to(server.url()), seconds=5)

    assert (None, 200, b"x" * KEPT) == (receipt.error, receipt.status, receipt.response)  # no error: within the deadline
    assert READ <= written < 256 * READ  # includes what the kernel's buffers hold, 10 MB at most; without end it is gigabytes


def test_a_body_that_unpacks_to_a_huge_one_is_not_unpacked() -> None:
    import gzip

    bomb = gzip.compress(b"\0" * 50_000_000)
    raw = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(bomb), bomb)
    with wire(answers(raw)) as server:
        receipt = sent(to(server.url()), seconds=5)

    assert (None, bomb[:KEPT]) == (receipt.error, receipt.response)


def test_an_answer_before_the_body_was_read_is_an_answer() -> None:
    async def hasty(_wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        await reader.read()

    with wire(hasty) as server:
        receipt = sent(to(server.url()), seconds=5, delivery=sample(b"x" * 5_000_000))

    assert ("status", 413) == (receipt.error, receipt.status)


@pytest.mark.parametrize(
    ("header", "wish"),
    [
        (b"webhook-delivery: disable", "disable"),
        (b"Webhook-Delivery: abort-message ", "abort"),
        (b"webhook-delivery: Disable", "disable"),
        (b"webhook-delivery: later", None),
        (b"X-Other: disable", None),
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_a_wish_is_read_from_the_answer(header, wish, status) -> None:
    with wire(answers(b"HTTP/1.1 %d x\r\n%b\r\nContent-Length: 0\r\n\r\n" % (status, header))) as server:
        receipt = sent(to(server.url()))

    assert (status, wish) == (receipt.status, receipt.wish)


def test_each_phase_of_a_first_try_is_timed_and_a_kept_connection_has_none_but_the_answer(lateness) -> None:
    authority = Authority()

    async def slow(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await wire.request(reader)
            await asyncio.sleep(0.1)
            writer.write(OK)

    def slowly(_host: str, port: int, *_options: object) -> list:
        time.sleep(0.1)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async def main(sender: HttpSender) -> list[Receipt]:
        sender._dialler._look_up = slowly
        endpoint = to(f"https://billing.example:{server.port}/", ca=authority.ca)
        return [await sender.send(endpoint, sample(), 5.0) for _ in range(2)]

    with wire(slow, authority.server("billing.example")) as server:
        first, second = run(HttpSender, main)

    phases = (first.dns, first.connect, first.tls, first.first_byte)
    assert all(phase is not None and phase > 0 for phase in phases)
    assert 0.1 <= first.dns < 0.3 + lateness()
    assert 0.1 <= first.first_byte < 0.3 + lateness()
    assert sum(phases) == pytest.approx(first.duration, abs=0.05 + lateness())
    assert (False, True) == (first.reused, second.reused)
    assert (None, None, None) == (second.dns, second.connect, second.tls)
    assert 0.1 <= second.first_byte < 0.3 + lateness()
    assert {f"127.0.0.1:{server.port}"} == {first.address, second.address}
    assert 1 == server.connections


def test_trailers_wish_for_nothing() -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nwebhook-delivery: disable\r\n\r\n"
    with wire(answers(raw)) as server:
        receipt = sent(to(server.url()))

    assert (None, b"ok", None) == (receipt.error, receipt.response, receipt.wish)


@pytest.mark.parametrize("raw", [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", OK])
def test_a_connection_that_its_server_closed_is_not_used_again(raw) -> None:
    async def once(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await wire.request(reader)
        writer.write(raw)

    async def main(sender: HttpSender) -> list[Receipt]:
        found = []
        for _ in range(3):
            found.append(await sender.send(to(server.url()), sample(), 30.0))
            await asyncio.sleep(0.05)
        return found

    with wire(once) as server:
        found = run(HttpSender, main)

    assert [(None, False)] * 3 == [(receipt.error, receipt.reused) for receipt in found]


def test_a_name_is_looked_up_once_for_concurrent_deliveries() -> None:
    asked = []

    def slow(host: str, port: int, *_options: object) -> list:
        asked.append(host)
        time.sleep(0.1)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async def main(sender: HttpSender) -> list[Receipt]:
        sender._dialler._look_up = slow
        return await asyncio.gather(*(sender.send(to(url), sample(), 30.0) for _ in range(50)))

    with wire(answers(OK)) as server:
        url = f"http://busy.example:{server.port}/"
        found = run(HttpSender, main)

    assert [None] * 50 == [receipt.error for receipt in found]
    assert ["busy.example"] == asked


def test_a_connection_that_nobody_uses_is_closed(monkeypatch) -> None:
    monkeypatch.setattr(http_connections, "IDLE", 0.5)
    monkeypatch.setattr(http_connections, "SWEEP", 0.05)

    async def main(sender: HttpSender) -> tuple[Receipt, int]:
        receipt = await sender.send(to(server.url()), sample(), 30.0)
        open_before = len(server.notes)
        await asyncio.to_thread(wait_for, lambda: server.notes)
        return receipt, open_before

    async def until_closed(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await wire.request(reader)
        writer.write(OK)
        wire.notes.append(await reader.read())

    with wire(until_closed) as server:
        receipt, open_before = run(HttpSender, main)

    assert (None, 0, [b""]) == (receipt.error, open_before, server.notes)


def test_a_user_in_the_url_is_who_asks() -> None:
    with wire(answers(OK)) as server:
        sent(to(server.url().replace("//", "//us:p%40ss@")))
        sent(to(server.url().replace("//", "//us:p%40ss@"), headers={"authorization": "Bearer abc"}))

    first, second = (head.lower().split("\r\n") for head in server.heads)
    assert "authorization: basic " + base64.b64encode(b"us:p@ss").decode().lower() in first
    assert "authorization: bearer abc" in second
    assert f"host: 127.0.0.1:{server.port}" in first


def test_headers_of_an_endpoint_are_sent_and_overrule_none_of_ours() -> None:
    terms = {
        "authorization": "Bearer abc",
        "x-team": "a, b",
        "webhook-id": "forged",
        "content-type": "forged",
        "ce-id": "forged",
    }
    with wire(answers(OK)) as server:
        sent(to(server.url(), headers=terms))

    (head,) = server.heads
    lines = head.lower().split("\r\n")
    assert {
        "authorization: bearer abc",
        "x-team: a, b",
        "webhook-id: e-1",
        "content-type: application/json",
        "ce-id: e-1",
    } <= set(lines)
    assert "forged" not in head


def test_a_header_with_a_line_break_is_not_sent() -> None:
    with wire(answers(OK)) as server:
        receipt = sent(to(server.url(), headers={"x-a": "b\r\nx-c: d"}))

    assert ("unsendable", []) == (receipt.error, server.heads)


def test_an_invalid_secret_makes_the_delivery_unsendable() -> None:
    receipt = sent(replace(to("http://127.0.0.1:9/"), secrets=("whsec_%%%",)))

    assert ("unsendable", True) == (receipt.error, "%%%" not in (receipt.detail or ""))


@pytest.mark.parametrize(
    ("names", "days", "ca", "error"),
    [
        (("127.0.0.1",), 1, True, None),
        (("127.0.0.1",), 1, False, "tls"),
        (("other.example",), 1, True, "tls"),
        (("127.0.0.1",), -1, True, "tls"),
    ],
    ids=["good", "unknown authority", "another name", "expired"],
)
def test_only_a_certificate_of_the_named_authority_for_that_name_is_trusted(authority, names, days, ca, error) -> None:
    with wire(answers(OK), authority.server(*names, days=days)) as server:
        receipt = sent(to(server.url("https"), ca=authority.ca if ca else None), seconds=5)

    assert error == receipt.error
    assert (0 if error else 1) == len(server.heads)


def test_plain_text_where_tls_is_due_is_a_failure_of_tls() -> None:
    async def plain(_wire: Wire, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await writer.drain()
        await asyncio.sleep(1)

    with wire(plain) as server:
        receipt = sent(to(server.url("https")), seconds=5)

    assert ("tls", None) == (receipt.error, receipt.status)


def test_a_client_certificate_is_shown_to_whom_it_is_for_and_nobody_else(authority) -> None:
    async def who(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown = writer.get_extra_info("peercert") or {}
        wire.notes.append(dict(part[0] for part in shown.get("subject", ())).get("commonName"))
        await answers(OK)(wire, reader, writer)

    with wire(who, authority.server("127.0.0.1", clients=True)) as server:
        with_one = to(server.url("https"), ca=authority.ca, client_cert=authority.issue("us.example"))
        with_another = replace(with_one, client_cert=authority.issue("them.example"))
        without = to(server.url("https"), ca=authority.ca)
        strangers = replace(with_one, client_cert=Authority().issue("us.example"))

        async def main(sender: HttpSender) -> list[Receipt]:
            return [await sender.send(each, sample(), 5.0) for each in (with_one, with_another, without, strangers, with_one)]

        found = run(HttpSender, main)

    assert [None, None, True, True, None] == [receipt.error and receipt.error in ("tls", "reset") for receipt in found]
    assert ["us.example", "them.example"] == server.notes
    assert [False, False, None, None, True] == [receipt.reused if not receipt.error else None for receipt in found]


def test_what_an_operator_reads_of_a_failure_holds_no_secret(authority) -> None:
    endpoints = [
        to("http://127.0.0.1:1/?token=hidden"),
        to("http://nowhere.invalid/?token=hidden"),
        to("http://127.0.0.1:99999/?token=hidden"),
        to("https://127.0.0.1:1/?token=hidden", client_cert=authority.issue("a").replace("A", "B")),
    ]
    found = receipts(HttpSender, endpoints)

    assert ["connect", "dns", "url", "tls"] == [receipt.error for receipt in found]
    for receipt in found:
        for secret in ("hidden", SECRET, "BEGIN"):
            assert secret not in repr(receipt)


def test_a_sender_that_closes_leaves_no_connection_open() -> None:
    async def until_closed(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await wire.request(reader)
        writer.write(OK)
        wire.notes.append(await reader.read())

    with wire(until_closed) as server:
        sent(to(server.url()))
        wait_for(lambda: [b""] == server.notes, 5)
