"""The broker's queues, as the console looks at them: asked rarely, and not waited for."""

import threading
import time

import pytest

from ops.admin.status import queue_watch
from ops.admin.status.queue_watch import NO_QUEUES, QueueWatch

URL = "amqp://waxseal:secret@broker.example"
STATE = {"waxseal.ingest": (3, 0), "waxseal.unrouted": (4, 0), "waxseal.deliver": (2, 1), "waxseal.deliver.DQ": (9, 0)}


def test_many_who_look_ask_the_broker_once_and_see_what_waits_unserved() -> None:
    asked: list[str] = []
    watch = QueueWatch(URL, lambda url: asked.append(url) or STATE)
    seen = [watch.look() for _ in range(3)]

    assert [URL] == asked
    assert (7, [("waxseal.ingest", 3)], STATE) == (seen[2].inbox, seen[2].unserved, seen[2].queues)


def test_a_broker_that_hangs_is_not_waited_for_and_not_asked_again_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_watch, "WAIT", 0.02)
    monkeypatch.setattr(queue_watch, "KEPT", 0.0)
    asked: list[str] = []
    go_on = threading.Event()

    def hang(url: str) -> dict[str, None]:
        asked.append(url)
        go_on.wait(20)
        return {}

    watch = QueueWatch(URL, hang)
    began = time.monotonic()
    seen = [watch.look() for _ in range(5)]
    go_on.set()

    assert time.monotonic() - began < 5
    assert ([URL], {(None, True)}) == (asked, {(each.queues, each.configured) for each in seen})


def test_a_broker_that_refuses_is_one_that_does_not_answer() -> None:
    def refuse(url: str) -> dict[str, None]:
        raise ConnectionRefusedError(url)

    assert (None, None, []) == ((seen := QueueWatch(URL, refuse).look()).queues, seen.inbox, seen.unserved)


def test_without_a_broker_nobody_is_asked() -> None:
    assert (None, False) == (NO_QUEUES.look().queues, NO_QUEUES.look().configured)
