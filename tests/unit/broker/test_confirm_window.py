import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties

from workers.amqp.confirm_window import REFUSED, RETURNED, Outgoing, Slot, Window

Log = list[tuple[str, str | None]]


def slot(log: Log, name: str, *, deadline: float = 10.0, size: int = 1, mandatory: bool = True) -> Slot:
    message = Outgoing("x", name.rstrip("0123456789"), b"b" * size, BasicProperties(), mandatory)
    return Slot(message, deadline, lambda fault: log.append((name, fault)))


def pump(window: Window) -> list[int]:
    """Sends what the window admits, as the publisher does; returns the sizes."""
    sent = []
    for one in window.admitted():
        window.sent(one)
        sent.append(len(one.message.body))
    return sent


@pytest.fixture
def log() -> Log:
    return []


@pytest.fixture
def filled(log: Log) -> Callable[..., Window]:
    """A window in which messages 1, 2, ... have been sent."""

    def fill(messages: int, /, **limits: int) -> Window:
        window = Window(**({"count": 100, "size": 1000, "backlog": 100} | limits))
        for number in range(1, messages + 1):
            assert window.enter(slot(log, f"m{number}"))
        pump(window)
        return window

    return fill


def test_one_confirm_settles_one_message(filled: Callable[..., Window], log: Log) -> None:
    window = filled(3)
    window.confirm(2, multiple=False, taken=True)

    assert [("m2", None)] == log
    assert 2 == len(window)


def test_a_multiple_confirm_settles_all_up_to_it_that_were_not_settled_before(filled: Callable[..., Window], log: Log) -> None:
    window = filled(5)
    window.confirm(2, multiple=False, taken=True)
    window.confirm(4, multiple=True, taken=True)
    window.confirm(4, multiple=True, taken=True)

    assert [("m2", None), ("m1", None), ("m3", None), ("m4", None)] == log
    assert 1 == len(window)


def test_a_refusal_settles_as_a_fault(filled: Callable[..., Window], log: Log) -> None:
    filled(2).confirm(2, multiple=True, taken=False)

    assert [("m1", REFUSED), ("m2", REFUSED)] == log


def test_a_confirm_for_what_was_never_sent_changes_nothing(filled: Callable[..., Window], log: Log) -> None:
    window = filled(1)
    window.confirm(7, multiple=False, taken=True)
    window.confirm(0, multiple=True, taken=True)

    assert [] == log
    assert 1 == len(window)


def test_what_was_returned_is_a_fault_though_it_is_confirmed(log: Log) -> None:
    window = Window(100, 1000, 100)
    for name in ("lost1", "kept1", "lost2"):
        window.enter(slot(log, name))
    pump(window)
    window.returned("x", "lost")
    window.enter(slot(log, "lost3"))
    pump(window)
    window.confirm(4, multiple=True, taken=True)

    assert [("lost1", RETURNED), ("kept1", None), ("lost2", RETURNED), ("lost3", None)] == log


def test_a_return_is_forgotten_when_nothing_is_in_flight(filled: Callable[..., Window], log: Log) -> None:
    window = filled(1)
    window.returned("x", "m")
    window.confirm(1, multiple=False, taken=True)
    window.enter(slot(log, "m2"))
    pump(window)
    window.confirm(2, multiple=False, taken=True)

    assert [("m1", RETURNED), ("m2", None)] == log


def test_returns_are_forgotten_though_one_message_is_always_in_flight(log: Log) -> None:
    window = Window(10, 1000, 10)
    names = ["first", *(f"k{number}." for number in range(200))]  # the names are the routing keys
    window.sent(slot(log, "first"))
    window.returned("x", "first")
    for tag, name in enumerate(names[1:], 2):
        window.sent(slot(log, name))
        window.returned("x", name)
        assert len(window._returned) <= 2 * 10
        window.confirm(tag, multiple=False, taken=True)
    window.confirm(1, multiple=False, taken=True)

    assert [(name, RETURNED) for name in (*names[1:], "first")] == log


def test_a_multiple_confirm_costs_nothing_for_messages_that_were_settled_before(
    filled: Callable[..., Window], log: Log
) -> None:
    window = filled(3)
    began = time.thread_time()
    window.confirm(20_000_000, multiple=True, taken=True)  # a range that long takes a second

    assert [("m1", None), ("m2", None), ("m3", None)] == log
    assert time.thread_time() - began < 0.2


def test_messages_beyond_the_count_wait_and_keep_their_order(filled: Callable[..., Window], log: Log) -> None:
    window = filled(5, count=2)
    assert 2 == len(window)
    window.confirm(2, multiple=True, taken=True)
    pump(window)
    window.confirm(4, multiple=True, taken=True)

    assert ["m1", "m2", "m3", "m4"] == [name for name, _ in log]


def test_a_message_is_sent_at_once_only_when_the_window_has_capacity_and_none_waits(log: Log) -> None:
    window = Window(count=2, size=10, backlog=100)
    small, large = slot(log, "s", size=3), slot(log, "l", size=20)

    assert window.takes(large)  # nothing else is in flight
    window.sent(small)
    assert (True, False) == (window.takes(small), window.takes(large))
    window.enter(small)
    assert not window.takes(small)
    pump(window)
    assert not window.takes(slot(log, "n", size=0))


def test_bytes_are_bounded_but_one_message_always_fits(log: Log) -> None:
    window = Window(100, 10, 100)
    for number, size in enumerate((50, 6, 5, 4), 1):
        window.enter(slot(log, f"m{number}", size=size))

    assert [50] == pump(window)
    window.confirm(1, multiple=False, taken=True)
    assert [6] == pump(window)
    window.confirm(2, multiple=False, taken=True)
    assert [5, 4] == pump(window)


def test_the_backlog_is_bounded(log: Log) -> None:
    window = Window(1, 1000, 2)

    assert [True, True, False] == [window.enter(slot(log, f"m{number}")) for number in range(3)]


def test_what_is_late_is_settled_but_keeps_its_place_until_the_broker_speaks(filled: Callable[..., Window], log: Log) -> None:
    window = filled(2, count=1)
    window.expire(10.0, "late")

    assert [("m1", "late"), ("m2", "late")] == log
    assert 1 == len(window)
    window.confirm(1, multiple=False, taken=True)
    assert 2 == len(log)
    assert window.idle


def test_only_what_is_due_expires(log: Log) -> None:
    window = Window(1, 1000, 100)
    for number, deadline in enumerate((3.0, 1.0, 2.0), 1):
        window.enter(slot(log, f"m{number}", deadline=deadline))
    pump(window)
    window.expire(2.0, "late")

    assert [("m2", "late"), ("m3", "late")] == log


def test_a_loss_settles_everything_and_tags_begin_anew(filled: Callable[..., Window], log: Log) -> None:
    window = filled(2, count=1)
    window.fail("lost")
    assert [("m1", "lost"), ("m2", "lost")] == log
    assert window.idle
    window.enter(slot(log, "m3"))
    pump(window)
    window.confirm(1, multiple=False, taken=True)

    assert ("m3", None) == log[-1]


CONFIRMS = st.lists(st.tuples(st.integers(0, 40), st.booleans(), st.booleans()), max_size=60)


@given(st.integers(0, 30), CONFIRMS, st.integers(1, 10))
def test_every_message_is_settled_exactly_once_whatever_the_broker_says(
    count: int, confirms: list[tuple[int, bool, bool]], limit: int
) -> None:
    log: Log = []
    window = Window(limit, 1000, 100)
    for number in range(count):
        window.enter(slot(log, f"m{number}"))
    pump(window)
    for tag, multiple, taken in confirms:
        window.confirm(tag, multiple=multiple, taken=taken)
        pump(window)
        assert len(window) <= limit
    window.fail("lost")

    assert sorted(f"m{number}" for number in range(count)) == sorted(name for name, _ in log)
