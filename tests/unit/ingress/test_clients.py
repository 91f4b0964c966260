"""Which connections are accepted, and which are closed in favour of new ones."""

import pytest

from workers.ingress.clients import Clients, counted


class Someone:
    def __init__(self, name: str, address: str = "a") -> None:
        self.name, self.address = name, address
        self.since = self.deadline = 0.0
        self.evicted = self.expired = False

    def evict(self) -> None:
        self.evicted = True

    def expire(self) -> None:
        self.expired = True

    def end(self, *, at_once: bool = False) -> None:
        raise AssertionError


class Door:
    """A clock, and clients that connect one after the other, one a second."""

    def __init__(self, most: int = 3, per_address: int = 3) -> None:
        self.now = 100.0
        self.clients = Clients(per_address, most, lambda: self.now)

    def come(self, name: str, line: str | None, address: str = "a") -> Someone:
        someone = Someone(name, address)
        someone.let_in = self.clients.enter(someone)
        someone.since = self.now
        if line is not None:
            getattr(self.clients, line)[someone] = None
        self.now += 1.0
        return someone


def test_connections_that_never_sent_anything_are_closed_first_oldest_first() -> None:
    door = Door()
    idle, old, new = door.come("idle", "idle"), door.come("old", "new"), door.come("new", "new")
    next_one = door.come("next", None)

    assert next_one.let_in
    assert [False, True, False] == [each.evicted for each in (idle, old, new)]
    assert 3 == len(door.clients)


def test_idle_connections_are_closed_before_slow_ones() -> None:
    door = Door()
    slow, idle = door.come("slow", "slow"), door.come("idle", "idle")
    door.come("busy", None)
    door.now += 10

    assert all(door.come(name, None).let_in for name in ("next", "and the next"))
    assert [True, True] == [slow.evicted, idle.evicted]
    assert not door.come("too many", None).let_in


def test_a_new_connection_has_a_moment_to_send_something() -> None:
    door = Door()
    crowd = [door.come(str(n), "new") for n in range(3)]
    door.now = crowd[0].since + 0.5

    assert not door.come("next", None).let_in
    assert not any(each.evicted for each in crowd)


def test_a_request_that_arrives_has_some_seconds() -> None:
    door = Door(most=1)
    slow = door.come("slow", "slow")

    assert not door.come("next", None).let_in
    assert not slow.evicted


def test_an_address_at_its_limit_displaces_only_its_own_connections() -> None:
    door = Door(most=10, per_address=2)
    other = door.come("other", "new", "b")
    first, second = door.come("first", "new"), door.come("second", "new")

    assert door.come("third", None).let_in
    assert [False, True, False] == [each.evicted for each in (other, first, second)]
    door.come("fourth", None)
    assert second.evicted
    assert not door.come("fifth", None).let_in
    assert door.come("another", None, "b").let_in


def test_closed_connections_are_not_counted() -> None:
    door = Door(most=2, per_address=1)
    one = door.come("one", None)
    door.clients.leave(one)
    door.clients.leave(one)

    assert 0 == len(door.clients)
    assert door.come("two", None).let_in


@pytest.mark.parametrize(
    ("host", "under"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::1", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
    ],
)
def test_an_ipv6_network_of_one_customer_counts_as_one_address(host: str, under: str) -> None:
    assert under == counted(host)
