"""How the time of a scanner grows with its input. It is the CPU time of this thread, so a busy machine does not matter."""

import gc
from collections.abc import Callable
from math import inf
from time import thread_time
from typing import Any

PROBE = 1024  # characters; a scanner that takes long for these is worse than quadratic
LOOK = 32 * 1024  # characters that take next to no time if it is linear
MOST = 512 * 1024
TOO_LONG = 0.1  # seconds for so few
NOTHING = 0.0015  # seconds: LOOK squared steps take longer, even at a fraction of a nanosecond each
ENOUGH = 0.004  # seconds: shorter measurements are too noisy to compare
PER_DOUBLING = 2.8  # linear time grows about 2 times per doubling, up to 2.7 while it outgrows a cache, quadratic time 4 times
PLAINLY_LINEAR = 2.4  # quadratic time looks like it only if the best run of a quarter takes three times as long as it should
LARGEST = 4 * 1024 * 1024
LONG = 0.05  # seconds: after a run this long the input is not enlarged further

Run = Callable[[Any], object]
Attack = Callable[[int], Any]


def growth(run: Run, attack: Attack, tries: int = 3) -> float:
    """The factor by which the time grows when the input doubles: 2 is linear, 4 quadratic; 0 if it is too short to tell.

    It is the mean over two doublings. If it may be high, it is measured more exactly; if it is, larger inputs are measured
    too and the least factor counts: a full cache or an allocation shows at one size, quadratic time at every size. If it is
    still high, all of it is measured anew, `tries` times at most.
    """
    found = _once(run, attack)
    for _ in range(tries - 1):
        if PER_DOUBLING < found < inf:
            found = min(found, _once(run, attack))
    return found


def _once(run: Run, attack: Attack) -> float:
    if any(_is_long(run, attack(size)) for size in (16, 20, 22, 24, 30, PROBE)):
        return inf
    size, quarter, half, whole = PROBE, 0.0, 0.0, 0.0
    while whole < ENOUGH and size < MOST:
        size *= 2
        quarter, half, whole = half, whole, seconds(run, attack(size), 1)
        if size >= LOOK and whole < NOTHING:
            return 0.0
    found = _factor(min(quarter, seconds(run, attack(size // 4), 1)), whole)
    if found < PLAINLY_LINEAR:
        return found
    found = _between(run, attack, size, whole)
    while found > PER_DOUBLING and whole < LONG and size < LARGEST:
        size *= 2
        whole = seconds(run, attack(size), 1)
        found = min(found, _between(run, attack, size, whole))
    return found


def _is_long(run: Run, given: Any) -> bool:
    """Once more, if it is: SlipCover rewrites all code that was seen, in the midst of a run, and takes a tenth of a second."""
    return seconds(run, given, 1) > TOO_LONG and seconds(run, given, 1) > TOO_LONG


def _between(run: Run, attack: Attack, size: int, measured: float) -> float:
    """The factor per doubling between size / 4 and size. `measured` is the time of one run at `size`; another one is made."""
    quarter, whole = seconds(run, attack(size // 4), 4), min(measured, seconds(run, attack(size), 1))
    return _factor(quarter, whole)


def _factor(quarter: float, whole: float) -> float:
    return float((whole / max(quarter, 1e-6)) ** 0.5)


def seconds(run: Run, given: Any, times: int) -> float:
    """The least CPU seconds of several runs, with the garbage collector off."""
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
