import socket
import threading
from collections.abc import Iterator

import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest

from pipeline.mail.authentication import DnsAway
from workers.documents import dns as mail_dns
from workers.documents.dns import AWAY, KEPT, PER_MAIL, KeyLookup

KEY = "s1._domainkey.x.example"


class NameServer:
    """Answers on loopback: `records` by name; nothing for names that begin with `silent`."""

    def __init__(self) -> None:
        self.records = {KEY: '"v=DKIM1; " "p=AAAA"', "empty.example": None}
        self.asked: list[str] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                data, peer = self.socket.recvfrom(4096)
            except OSError:
                return
            query = dns.message.from_wire(data)
            name = query.question[0].name.to_text().rstrip(".")
            self.asked.append(name)
            if name.startswith("silent"):
                continue
            answer = dns.message.make_response(query)
            if name not in self.records:
                answer.set_rcode(dns.rcode.SERVFAIL if name.startswith("broken") else dns.rcode.NXDOMAIN)
            elif self.records[name]:
                answer.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "TXT", self.records[name]))
            self.socket.sendto(answer.to_wire(), peer)


@pytest.fixture
def server(monkeypatch) -> Iterator[NameServer]:
    server = NameServer()
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], server.socket.getsockname()[1]
    monkeypatch.setattr(dns.resolver, "default_resolver", resolver)
    monkeypatch.setattr(mail_dns, "LOOKUP", 0.3)
    yield server
    server.socket.close()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_key_is_found_whole_and_asked_for_once_until_it_is_old(server) -> None:
    clock = Clock()
    lookup = KeyLookup(clock)

    assert b"v=DKIM1; p=AAAA" == lookup(KEY) == lookup(KEY)
    clock.now += KEPT + 1
    assert b"v=DKIM1; p=AAAA" == lookup(KEY)
    assert [KEY, KEY] == server.asked


@pytest.mark.parametrize("name", ["none.example", "empty.example", "not..a.name", "x" * 70 + ".example", "\0\xff.example"])
def test_where_there_is_no_key_there_is_none(server, name: str) -> None:
    assert None is KeyLookup()(name)


@pytest.mark.parametrize("name", ["silent.example", "broken.example"])
def test_who_does_not_answer_is_left_alone_for_a_while(server, name: str) -> None:
    clock = Clock()
    lookup = KeyLookup(clock)

    with pytest.raises(DnsAway):
        lookup(name)
    asked = len(server.asked)
    with pytest.raises(DnsAway, match="just before"):
        lookup(KEY)
    assert asked == len(server.asked)
    clock.now += AWAY + 1
    assert b"v=DKIM1; p=AAAA" == lookup(KEY)


def test_all_look_ups_of_one_mail_have_a_bounded_time(server, monkeypatch) -> None:
    clock = Clock()
    lookup = KeyLookup(clock)

    def slow(_name: str) -> None:
        clock.now += PER_MAIL / 2

    monkeypatch.setattr(mail_dns, "_ask", slow)
    assert [None, None] == [lookup("a.example"), lookup("b.example")]
    with pytest.raises(DnsAway):
        lookup("c.example")
    lookup.begin()
    assert None is lookup("c.example")


def test_no_more_answers_are_kept_than_a_bound(server, monkeypatch) -> None:
    monkeypatch.setattr(mail_dns, "MOST", 2)
    monkeypatch.setattr(mail_dns, "_ask", server.asked.append)
    lookup = KeyLookup()
    for name in ("a", "b", "c", "c", "a"):
        lookup(name)

    assert ["a", "b", "c", "a"] == server.asked
