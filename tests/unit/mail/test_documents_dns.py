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
from workers.documents.dns import AWAY, IN_A_ROW, KEPT, PER_MAIL, KeyLookup

KEY = "s1._domainkey.x.example"


class NameServer:
    """Answers on loopback: `records` by name, nothing to names in a domain `silent*`, and nothing at all while `down`."""

    def __init__(self) -> None:
        self.down = False
        self.records = {KEY: '"v=DKIM1; " "p=AAAA"', "empty.example": None}
        self.asked: list[str] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            data, peer = self.socket.recvfrom(4096)
            if not data:
                return
            query = dns.message.from_wire(data)
            name = query.question[0].name.to_text().rstrip(".")
            self.asked.append(name)
            domain = name.rpartition("_domainkey.")[2]
            if self.down or domain.startswith("silent"):
                continue
            answer = dns.message.make_response(query)
            if name not in self.records:
                answer.set_rcode(dns.rcode.SERVFAIL if domain.startswith("broken") else dns.rcode.NXDOMAIN)
            elif self.records[name]:
                answer.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "TXT", self.records[name]))
            self.socket.sendto(answer.to_wire(), peer)

    def close(self) -> None:
        """Closing does not wake the thread, which might receive for the next one then; an empty packet ends it."""
        self.socket.sendto(b"", self.socket.getsockname())
        self.thread.join()
        self.socket.close()


@pytest.fixture
def server(monkeypatch) -> Iterator[NameServer]:
    server = NameServer()
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], server.socket.getsockname()[1]
    monkeypatch.setattr(dns.resolver, "default_resolver", resolver)
    monkeypatch.setattr(mail_dns, "LOOKUP", 0.3)
    yield server
    server.close()


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
def test_a_missing_key_is_none(server, name: str) -> None:
    assert None is KeyLookup()(name)


def unanswered(lookup: KeyLookup, name: str) -> None:
    lookup.begin()
    with pytest.raises(DnsAway):
        lookup(name)


@pytest.mark.parametrize("domain", ["silent.example", "broken.example"])
def test_a_domain_that_does_not_answer_is_left_alone_for_a_while(server, domain: str) -> None:
    clock = Clock()
    lookup = KeyLookup(clock)

    unanswered(lookup, f"s1._domainkey.{domain}")
    asked = len(server.asked)
    with pytest.raises(DnsAway, match="just before"):
        lookup(f"s2._domainkey.{domain.upper()}")
    assert asked == len(server.asked)
    clock.now += AWAY + 1
    unanswered(lookup, f"s2._domainkey.{domain}")
    assert asked < len(server.asked)


@pytest.mark.parametrize("domain", ["silent{}.example", "broken{}.example"])
def test_domains_that_do_not_answer_stop_no_look_up_of_others(server, domain: str) -> None:
    lookup = KeyLookup(Clock())
    for number in range(IN_A_ROW + 1):
        unanswered(lookup, f"s1._domainkey.{domain.format(number)}")

    assert b"v=DKIM1; p=AAAA" == lookup(KEY)


def test_a_resolver_that_does_not_answer_is_left_alone_for_a_while(server, monkeypatch) -> None:
    monkeypatch.setattr(mail_dns, "PROBE", 0.1)
    clock = Clock()
    lookup = KeyLookup(clock)
    server.down = True
    for number in range(IN_A_ROW):
        unanswered(lookup, f"s1._domainkey.x{number}.example")
    asked = len(server.asked)
    with pytest.raises(DnsAway, match="just before"):
        lookup(KEY)
    assert asked == len(server.asked)

    clock.now += AWAY + 1
    unanswered(lookup, "s1._domainkey.y.example")  # one is enough while it stays away
    with pytest.raises(DnsAway, match="just before"):
        lookup(KEY)

    clock.now += AWAY + 1
    server.down = False
    assert b"v=DKIM1; p=AAAA" == lookup(KEY)


def test_without_a_resolver_all_look_ups_are_left_alone_for_a_while(server) -> None:
    dns.resolver.get_default_resolver().nameservers = []
    lookup = KeyLookup(Clock())
    for number in range(IN_A_ROW):
        unanswered(lookup, f"s1._domainkey.x{number}.example")

    with pytest.raises(DnsAway, match="just before"):
        lookup(KEY)


def test_no_more_domains_are_left_alone_than_a_bound(server, monkeypatch) -> None:
    monkeypatch.setattr(mail_dns, "MOST_SUSPENDED", 2)
    lookup = KeyLookup(Clock())
    for name in ("broken1.example", "broken2.example", "broken3.example"):
        unanswered(lookup, name)
    server.asked.clear()
    for name in ("broken3.example", "broken2.example", "broken1.example"):
        unanswered(lookup, name)

    assert {"broken1.example"} == set(server.asked) - {""}


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
