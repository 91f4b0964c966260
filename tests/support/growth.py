"""How the time of a scanner grows with its input: CPU time of this thread, so that a busy machine does not count."""

import gc
from collections.abc import Callable
from math import inf
from time import thread_time
from typing import Any

PROBE = 1024  # characters; what takes long for them is worse than the square
LOOK = 32 * 1024  # characters that take nothing when the time is linear
MOST = 512 * 1024
NOTHING = 0.0015  # seconds: the square of that many steps takes longer, were each but a fraction of a nanosecond
ENOUGH = 0.004  # seconds of a measurement that is worth comparing
PER_DOUBLING = 2.6  # twice the input takes about twice as long; the square would be four times
LARGEST = 4 * 1024 * 1024
LONG = 0.25  # seconds: what takes that is not measured with more

Run = Callable[[Any], object]
Attack = Callable[[int], Any]


def growth(run: Run, attack: Attack) -> float:
    """By how much the time grows when the input doubles: 2 is linear, 4 the square; 0 where it is too short to tell.

    The mean over two doublings. What looks steep is measured again with more, and the least counts: that a cache is too small,
    or memory has to be asked for, shows at one size, the square at all.
    """
    if any(seconds(run, attack(size), 1) > 0.1 for size in (16, 24, 30, PROBE)):
        return inf
    size, whole = PROBE, 0.0
    while whole < ENOUGH and size < MOST:
        size *= 2
        whole = seconds(run, attack(size), 1)
        if size >= LOOK and whole < NOTHING:
            return 0.0
    found = _between(run, attack, size, whole)
    while found > PER_DOUBLING and whole < LONG and size < LARGEST:
        size *= 2
        whole = seconds(run, attack(size), 1)
        found = min(found, _between(run, attack, size, whole))
    return found


def _between(run: Run, attack: Attack, size: int, measured: float) -> float:
    """`measured` is what one run with that size took; another one is made."""
    quarter, whole = seconds(run, attack(size // 4), 4), min(measured, seconds(run, attack(size), 1))
    return float((whole / max(quarter, 1e-6)) ** 0.5)


def seconds(run: Run, given: Any, times: int) -> float:
    """The least CPU seconds of several runs, without those of the garbage collector."""
    taken = []
    collects = gc.isenabled()
    gc.disable()
    try:
        for _ in range(times):
            began = thread_time()
            run(given)
            taken.append(thread_time() - began)
    finally:
        if collects:
            gc.enable()
    return min(taken)
