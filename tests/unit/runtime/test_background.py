"""Background work of a process."""

import threading
import time
from itertools import pairwise

import pytest

from ops.runtime.background import Chore
from support.waiting import wait_for


def test_a_chore_is_done_at_once_and_again_and_not_after_it_was_closed() -> None:
    done: list[float] = []
    chore = Chore("sweep", 0.05, lambda: done.append(time.monotonic()))
    wait_for(lambda: len(done) >= 3)
    chore.close()
    count = len(done)
    time.sleep(0.15)

    assert count == len(done)
    assert all(later - earlier >= 0.05 for earlier, later in pairwise(done))


def test_a_chore_that_fails_is_done_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.runtime.background.SOON", 0.01)
    tries: list[int] = []

    def work() -> None:
        tries.append(len(tries))
        if len(tries) < 3:
            raise OSError("not yet")

    chore = Chore("sweep", 3600, work)
    wait_for(lambda: len(tries) == 3)
    time.sleep(0.1)
    chore.close()

    assert [0, 1, 2] == tries


def test_closing_does_not_wait_for_a_chore_that_hangs() -> None:
    hanging = threading.Event()
    chore = Chore("hang", 1, lambda: hanging.wait(30) and None)
    began = time.monotonic()
    chore.close()
    took = time.monotonic() - began
    hanging.set()

    assert took < 20
