"""No private address is reached, however it is spelled or resolved: a real listener would notice."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest

from pipeline.delivery.addresses import networks
from schemas.config.smtp_target import SmtpTarget
from schemas.delivery import Receipt
from schemas.endpoint import Endpoint
from schemas.mailbox import Mailbox
from support.sending import LOCAL, PUBLIC, receipts, run, sample, to
from workers.mail.imap import wire
from workers.mail.imap.connection import connect
from workers.mail.mailbox_session import Away
from workers.net.dial import Dialler, Refused, dial_blocking
from workers.net.terms import Terms
from workers.transports.http import HttpSender
from workers.transports.smtp import SmtpSender

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

#: Without the guard each of these reaches the listener below, if this machine has the address.
LOOPBACK = (
    *("127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0x7f.0.0.1", "0177.0.0.1", "017700000001"),
    *("127.0.0.1.", "127.000.000.001", "127.127.127.127", "localhost", "localhost.", "LOCALHOST", "LocalHost.", "0", "0.0.0.0"),
    *("0x0", "[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[::1%25lo]"),
)

#: These are private or reserved, or embed such an address.
ELSEWHERE = (
    *("10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "169.254.0.1", "169.254.169.254", "168.63.129.16", "192.0.0.192"),
    *("224.0.0.1", "240.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1", "203.0.113.1", "0.1.2.3", "192.88.99.1"),
    *("2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "10.65535"),
    *("[fd00:ec2::254]", "[fe80::1%25eth0]", "[fe80::1]", "[fec0::1]", "[fc00::1]", "[ff02::1]", "[2001:db8::1]", "[3fff::1]"),
    *("[::ffff:169.254.169.254]", "[::ffff:10.0.0.1]", "[::ffff:0:10.0.0.1]", "[64:ff9b::169.254.169.254]", "[64:ff9b:1::1]"),
    *("[2002:a9fe:a9fe::]", "[2001:0:a00:1::]", "[100::1]", "[5f00::1]", "[2001:2::1]"),
)


SIXTH = ("[::1]",) if socket.has_dualstack_ipv6() else ()


class Listener:
    """Answers 200 on every address of the machine, and counts connections."""

    def __init__(self) -> None:
        self.came = 0
        self._socket = (
            socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
            if SIXTH
            else socket.create_server(("0.0.0.0", 0))
        )
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.came += 1
            with connection:
                connection.settimeout(5)
                connection.recv(65536)
                connection.sendall(OK)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


def told(each: Sequence[Receipt]) -> list[str | None]:
    return [receipt.error for receipt in each]


def test_no_spelling_of_a_private_address_is_reached(listener) -> None:
    hosts = LOOPBACK + ELSEWHERE
    found = receipts(HttpSender, [to(f"http://{host}:{listener.port}/") for host in hosts], PUBLIC, seconds=60.0)

    assert dict.fromkeys(hosts, "refused_address") == dict(zip(hosts, told(found), strict=True))
    assert {None} == {receipt.status for receipt in found}
    assert {None} == {receipt.address for receipt in found}
    assert 0 == listener.came
    assert 60 <= len(hosts)


def test_tls_does_not_help(listener) -> None:
    found = receipts(
        HttpSender, [to(f"https://{host}:{listener.port}/") for host in ("127.0.0.1", "localhost", "[::1]")], PUBLIC
    )

    assert ["refused_address"] * 3 == told(found)
    assert 0 == listener.came


def test_the_same_spellings_reach_the_listener_where_that_is_allowed(listener) -> None:
    """Proves that only the guard kept them out. The other spellings are not valid in a URL."""
    allowed = Terms("waxseal/test", networks("127.0.0.0/8,::1,0.0.0.0/8,::/96"))
    found = receipts(HttpSender, [to(f"http://{host}:{listener.port}/") for host in LOOPBACK], allowed)

    reached = [host for host, receipt in zip(LOOPBACK, found, strict=True) if receipt.status == 200]
    assert {"127.0.0.1", "127.127.127.127", "0x7f000001", "0x7f.1", "localhost", "LOCALHOST", *SIXTH} <= set(reached)
    assert len(reached) == listener.came


def test_only_what_is_listed_is_allowed(listener) -> None:
    allowed = Terms("waxseal/test", networks("127.0.0.1"))
    hosts = ("127.0.0.1", "[::ffff:127.0.0.1]", "127.0.0.2", "[::1]", "10.0.0.1")

    found = receipts(HttpSender, [to(f"http://{host}:{listener.port}/") for host in hosts], allowed)

    assert [None, None, "refused_address", "refused_address", "refused_address"] == told(found)


def scripted(*answers: Sequence[str]) -> Callable[..., list[tuple]]:
    """A name lookup that returns these lists of addresses in turn, and then the last one for ever."""
    left = list(answers)

    def look_up(_host: str, port: int, *_options: object) -> list[tuple]:
        addresses = left.pop(0) if len(left) > 1 else left[0]
        return [(family(each), socket.SOCK_STREAM, 6, "", sockaddr(each, port)) for each in addresses]

    return look_up


def family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def sockaddr(address: str, port: int) -> tuple:
    return (address, port, 0, 0) if ":" in address else (address, port)


async def sent(sender: HttpSender, url: str, look_up: Callable[..., list[tuple]] | None = None) -> Receipt:
    if look_up is not None:
        sender._dialler._look_up = look_up
    return await sender.send(to(url), sample(), 30.0)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.1", "169.254.169.254", "fd00:ec2::254"])
def test_a_name_that_leads_to_a_private_address_is_refused(listener, address) -> None:
    url = f"http://innocent.example:{listener.port}/"

    receipt = run(HttpSender, lambda sender: sent(sender, url, scripted([address])), PUBLIC)

    assert ("refused_address", None) == (receipt.error, receipt.address)
    assert receipt.detail is not None
    assert address in receipt.detail
    assert 0 == listener.came


def test_of_several_addresses_only_those_that_are_allowed_are_called(listener) -> None:
    url = f"http://innocent.example:{listener.port}/"
    mixed = scripted(["10.0.0.1", "169.254.169.254", "127.0.0.1", "192.168.0.1"])

    receipt = run(HttpSender, lambda sender: sent(sender, url, mixed), LOCAL)

    assert (None, 200, f"127.0.0.1:{listener.port}") == (receipt.error, receipt.status, receipt.address)


def test_a_name_that_changes_its_mind_gains_nothing(listener) -> None:
    """DNS rebinding: the first look-up returns an allowed address, every later one a forbidden one."""
    url = f"http://innocent.example:{listener.port}/"

    async def main(sender: HttpSender) -> list[Receipt]:
        first = await sent(sender, url, scripted(["127.0.0.1"], ["127.0.0.2"]))
        await asyncio.sleep(0.05)  # the listener closes the connection, so the second try needs a new one
        sender._connections.forget_names()
        return [first, await sent(sender, url)]

    found = run(HttpSender, main, Terms("waxseal/test", networks("127.0.0.1")))

    assert [None, "refused_address"] == told(found)
    assert 1 == listener.came


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1", "localhost", "::1", "fe80::1%eth0", "2130706433", ""])
def test_no_socket_is_made_for_an_address_that_is_not_allowed(address) -> None:
    async def main() -> None:
        dialler = Dialler(())
        try:
            with pytest.raises(Refused):
                dialler.make_socket((family(address), socket.SOCK_STREAM, 6, "", sockaddr(address, 80)))
        finally:
            await dialler.close()

    asyncio.run(main())


def test_a_redirect_to_a_private_address_is_not_followed(listener) -> None:
    async def main(sender: HttpSender) -> Receipt:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 307 x\r\nLocation: http://127.0.0.1:%d/\r\nContent-Length: 0\r\n\r\n" % listener.port)

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        try:
            return await sent(sender, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        finally:
            server.close()

    receipt = run(HttpSender, main)

    assert ("redirect", 307, 0) == (receipt.error, receipt.status, listener.came)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "localhost", "::1", "169.254.169.254", "2130706433", "10.0.0.1"])
def test_a_mail_server_is_guarded_against_as_well(listener, host) -> None:
    target = SmtpTarget(("a@b.example",), "c@d.example", host, listener.port, "none")
    endpoint = Endpoint(1, "acme", "mail", "", transport="smtp", target=target)

    (receipt,) = receipts(SmtpSender, [endpoint], PUBLIC, seconds=10)

    assert ("refused_address", 0) == (receipt.error, listener.came)


@pytest.mark.parametrize("allowed", [None, "none", "10.0.0.0/8"])
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "localhost", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fd00:ec2::254", "10.0.0.1"]
)
def test_a_mailboxs_server_is_guarded_against_as_well(listener, host, allowed, monkeypatch) -> None:
    monkeypatch.delenv("WAXSEAL_ALLOW_NETWORKS", raising=False)
    if allowed is not None:
        monkeypatch.setenv("WAXSEAL_ALLOW_NETWORKS", allowed)
    if (host, allowed) == ("10.0.0.1", "10.0.0.0/8"):
        host = "192.168.0.1"
    for tls in (False, True):
        with pytest.raises(Away, match=r"must not be called: .*WAXSEAL_ALLOW_NETWORKS"):
            connect(imap(host, listener.port, tls=tls), None, time.monotonic() + 20)

    assert 0 == listener.came


@pytest.mark.parametrize(
    ("first", "second"), [(["127.0.0.2"], ["127.0.0.1"]), (["10.0.0.1", "::1", "127.0.0.2"], ["127.0.0.1"])]
)
def test_a_mailboxs_server_is_called_where_it_was_checked(listener, first, second, monkeypatch) -> None:
    """DNS rebinding: a second look-up returns another address, which must not be called."""
    monkeypatch.setenv("WAXSEAL_ALLOW_NETWORKS", "127.0.0.2")
    monkeypatch.setattr(wire, "dial_blocking", partial(dial_blocking, look_up=scripted(first, second)))
    calls: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _self, address: calls.append(address[0]))

    with pytest.raises(Away):
        connect(imap("innocent.example", listener.port), None, time.monotonic() + 20)
    with pytest.raises(Away, match=r"127\.0\.0\.1 must not be called: loopback"):
        connect(imap("innocent.example", listener.port), None, time.monotonic() + 20)

    assert ["127.0.0.2"] == calls


def imap(host: str, port: int, *, tls: bool = False) -> Mailbox:
    return Mailbox(1, "acme", "support", "imap", "us", host=host, port=port, tls=tls, password="secret")
