"""Waiting for a condition, never for a time."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Returns when `condition` is true; fails when it is not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.02)


STEPS = 10  # consecutive wake-ups before a deadline ends something; each is late on a busy machine
NAP = 0.01  # seconds


@contextmanager
def lateness_measured() -> Iterator[Callable[[], float]]:
    """Yields a function for the seconds to add to a bound: `STEPS` times the worst lateness of a thread that only sleeps.

    On an idle machine that is next to nothing, so the bound is as strict as written.
    """
    latest, over = 0.0, threading.Event()

    def nap() -> None:
        nonlocal latest
        began = time.monotonic()
        while not over.wait(NAP):
            began, before = time.monotonic(), began
            latest = max(latest, began - before - NAP)

    beside = threading.Thread(target=nap, daemon=True)
    beside.start()
    yield lambda: STEPS * latest
    over.set()
    beside.join()
