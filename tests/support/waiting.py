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


STEPS = 10  # wake-ups in a row of what has a deadline; each comes late on a busy machine
NAP = 0.01  # seconds


@contextmanager
def lateness_measured() -> Iterator[Callable[[], float]]:
    """Gives what to add to a bound: how late, in seconds, somebody was who only slept beside, and `STEPS` times that.

    Next to nothing on an idle machine, where the bound is as strict as it reads.
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
