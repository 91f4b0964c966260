"""Deliveries through a proxy: the proxy's faults do not count against the endpoint."""

import asyncio
import base64
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from schemas.delivery import OURS, Receipt
from support.net.tls import Authority
from support.net.wire import Script, Wire, answers, wire
from support.sending import LOCAL, PUBLIC, receipts, run, sample, to
from workers.net.terms import Terms
from workers.transports.http import HttpSender

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TOKEN = base64.b64encode(b"us:p@ss").decode()

Through = Callable[..., Receipt]


def forwards(target: Wire) -> Script:
    """A proxy that connects to `target`, whatever address is requested, and forwards bytes."""

    async def script(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await wire.request(reader)
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", target.port)
        if head.startswith("CONNECT"):
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            inner_writer.write(re.sub(r" http://[^/]+", " ", head, count=1).encode() + wire.bodies[-1])
        await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))

    return script


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
    writer.close()


@pytest.fixture
def target() -> Iterator[Wire]:
    with wire(answers(OK)) as target:
        yield target


@pytest.fixture
def secure(authority) -> Iterator[Wire]:
    with wire(answers(OK), authority.server("billing.example")) as target:
        yield target


def through(proxy: str, url: str, terms: Terms = LOCAL, seconds: float = 30.0, **options: object) -> Receipt:
    (receipt,) = receipts(HttpSender, [to(url, **options)], replace(terms, proxy=proxy), seconds=seconds)
    return receipt


def address(proxy: Wire, userinfo: str = "") -> str:
    return f"http://{userinfo}127.0.0.1:{proxy.port}"


def test_a_request_goes_through_the_proxy_with_its_whole_url(target) -> None:
    with wire(forwards(target)) as proxy:
        receipt = through(address(proxy, "us:p%40ss@"), "http://billing.example/hooks?a=b")

    assert (None, 200, f"127.0.0.1:{proxy.port}") == (receipt.error, receipt.status, receipt.address)
    assert proxy.heads[0].startswith("POST http://billing.example/hooks?a=b HTTP/1.1\r\n")
    assert f"proxy-authorization: basic {TOKEN}".lower() in proxy.heads[0].lower()
    assert "\r\nHost: billing.example\r\n" in target.heads[0]


def test_tls_goes_through_a_tunnel_that_shows_the_proxy_nothing(secure, authority) -> None:
    with wire(forwards(secure)) as proxy:
        receipt = through(address(proxy, "us:p%40ss@"), "https://billing.example/hooks", ca=authority.ca)

    assert (None, 200) == (receipt.error, receipt.status)
    assert proxy.heads[0].startswith("CONNECT billing.example:443 HTTP/1.1\r\n")
    assert f"proxy-authorization: basic {TOKEN}".lower() in proxy.heads[0].lower()
    assert "webhook-id" not in proxy.heads[0]
    assert "proxy-authorization" not in secure.heads[0].lower()
    assert receipt.connect is not None
    assert receipt.tls is not None


def test_a_tunnel_is_kept_for_the_next_delivery(secure, authority) -> None:
    async def main(sender: HttpSender) -> list[Receipt]:
        endpoint = to("https://billing.example/hooks", ca=authority.ca)
        return [await sender.send(endpoint, sample(), 30.0) for _ in range(2)]

    with wire(forwards(secure)) as proxy:
        found = run(HttpSender, main, replace(LOCAL, proxy=address(proxy)))

    assert [(None, False), (None, True)] == [(receipt.error, receipt.reused) for receipt in found]
    assert 1 == proxy.connections


def test_a_proxy_over_tls_sees_nothing_of_what_an_endpoint_shows(target, secure, authority, monkeypatch, tmp_path) -> None:
    """It is verified with the system's authorities and gets no client certificate, whatever the endpoint's terms."""
    house = Authority("house")
    (tmp_path / "house.pem").write_text(house.ca)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "house.pem"))
    context = house.server("127.0.0.1")
    context.load_verify_locations(cadata=house.ca)
    context.verify_mode = 1  # ssl.CERT_OPTIONAL: it requests a client certificate, and accepts none
    shown = []

    async def nosy(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown.append(writer.get_extra_info("peercert"))
        await forwards(secure)(wire, reader, writer)

    with wire(nosy, context) as proxy:
        own = {"ca": authority.ca, "client_cert": house.issue("us.example")}
        receipt = through(f"https://127.0.0.1:{proxy.port}", "https://billing.example/", **own)

    assert (None, 200) == (receipt.error, receipt.status)
    assert [None] == [each or None for each in shown]


async def hangs(wire: Wire, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await wire.request(reader)
    await reader.read()


async def cuts(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await wire.request(reader)
    writer.transport.abort()


REFUSALS = [407, 403, 429, 500, 502, 503, 504]


@pytest.mark.parametrize("script", [*(answers(b"HTTP/1.1 %d x\r\n\r\n" % status) for status in REFUSALS), hangs, cuts])
def test_a_tunnel_that_is_not_made_is_the_proxys_fault(script) -> None:
    with wire(script) as proxy:
        receipt = through(address(proxy, "us:p%40ss@"), "https://billing.example/hooks", seconds=0.5)

    assert ("proxy", None, None) == (receipt.error, receipt.status, receipt.wish)
    assert receipt.error in OURS
    assert "p@ss" not in repr(receipt)
    assert "p%40ss" not in repr(receipt)


@pytest.mark.parametrize("url", ["http://billing.example/", "https://billing.example/"])
@pytest.mark.parametrize(
    "proxy", ["http://us:p%40ss@127.0.0.1:1", "http://us:p%40ss@nowhere.invalid:3128", "https://127.0.0.1:1"]
)
def test_a_proxy_that_is_not_there_is_its_own_fault(proxy, url) -> None:
    receipt = through(proxy, url)

    assert "proxy" == receipt.error
    assert "p%40ss" not in repr(receipt)


@pytest.mark.parametrize("url", ["http://billing.example/", "https://billing.example/"])
def test_a_proxy_whose_name_is_not_found_in_time_is_its_own_fault(url, lateness) -> None:
    def slow(*_asked: object) -> list:
        time.sleep(0.6)
        return []

    async def main(sender: HttpSender) -> Receipt:
        sender._dialler._look_up = slow
        return await sender.send(to(url), sample(), 0.3)

    receipt = run(HttpSender, main, replace(LOCAL, proxy="http://proxy.example:3128"))

    assert "proxy" == receipt.error
    assert 0.2 <= receipt.dns < 0.4 + lateness()


def test_what_is_wrong_with_the_endpoint_itself_is_not_the_proxys_fault() -> None:
    wrong = [to("http://billing.example:99999/"), to("https://billing.example/", client_cert="none")]

    found = receipts(HttpSender, wrong, replace(LOCAL, proxy="http://127.0.0.1:1"))

    assert ["url", "tls"] == [receipt.error for receipt in found]


@pytest.mark.parametrize("url", ["http://billing.example/", "https://billing.example/"])
def test_a_proxy_that_cannot_be_trusted_is_its_own_fault(authority, url) -> None:
    with wire(answers(OK), authority.server("127.0.0.1")) as proxy:
        receipt = through(f"https://127.0.0.1:{proxy.port}", url, ca=authority.ca)

    assert ("proxy", 0) == (receipt.error, len(proxy.heads))


def test_what_only_a_proxy_answers_is_the_proxys_fault() -> None:
    with wire(answers(b"HTTP/1.1 407 x\r\nRetry-After: 60\r\nwebhook-delivery: disable\r\nContent-Length: 0\r\n\r\n")) as proxy:
        receipt = through(address(proxy), "http://billing.example/")

    assert ("proxy", 407, None, None) == (receipt.error, receipt.status, receipt.retry_after, receipt.wish)


@pytest.mark.parametrize("status", [500, 503])
def test_what_the_endpoint_answers_through_the_proxy_is_the_endpoints(authority, status) -> None:
    raw = b"HTTP/1.1 %d x\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n" % status
    with wire(answers(raw), authority.server("billing.example")) as secure, wire(forwards(secure)) as proxy:
        receipt = through(address(proxy), "https://billing.example/", ca=authority.ca)

    assert ("status", status, 60.0) == (receipt.error, receipt.status, receipt.retry_after)


def test_an_endpoint_that_cannot_be_trusted_behind_a_proxy_is_the_endpoints_fault(secure) -> None:
    with wire(forwards(secure)) as proxy:
        receipt = through(address(proxy), "https://billing.example/")

    assert "tls" == receipt.error


def test_an_endpoint_that_hangs_behind_a_proxy_is_the_endpoints_fault(authority) -> None:
    async def silent(_wire: Wire, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    with wire(hangs, authority.server("billing.example")) as secure, wire(forwards(secure)) as proxy:
        answered = through(address(proxy), "https://billing.example/", seconds=0.5, ca=authority.ca)
    with wire(silent) as mute, wire(forwards(mute)) as proxy:
        in_tls = through(address(proxy), "https://billing.example/", seconds=0.5, ca=authority.ca)

    assert ("timeout", "timeout") == (answered.error, in_tls.error)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "localhost", "a.localhost.", "10.0.0.1", "169.254.169.254", "[::1]"]
)
def test_a_private_address_is_not_even_asked_for(target, host, scheme) -> None:
    with wire(forwards(target)) as proxy:
        receipt = through(address(proxy), f"{scheme}://{host}/", PUBLIC)

    assert ("refused_address", 0, 0) == (receipt.error, proxy.connections, target.connections)


def test_an_allowed_address_is_asked_for(target) -> None:
    with wire(forwards(target)) as proxy:
        receipt = through(address(proxy), "http://127.0.0.1/")

    assert (None, 1) == (receipt.error, target.connections)
