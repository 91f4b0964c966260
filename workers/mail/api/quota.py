"""Rate limits of this process's requests to a provider, in units a second for each mailbox."""

import random
import threading
import time
from collections.abc import Callable
from typing import Final

from pipeline.mail.settle_pull import LONGEST_WAIT

FIRST_WAIT: Final = 5.0  # seconds, if the provider throttles without a Retry-After


class Quota:
    """A token bucket. Safe to use from any thread."""

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = per_second
        self._burst = burst
        self._clock = clock
        self._lock = threading.Lock()
        self._left = burst
        self._at = clock()
        self._not_before = 0.0
        self._refusals = 0

    def take(self, units: float) -> float:
        """Takes the units and returns 0, or takes nothing and returns the seconds to wait."""
        with self._lock:
            now = self._clock()
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
            self._at = now
            if now < self._not_before:
                return self._not_before - now
            if self._left < units:
                return (self._burst / 2 - self._left + units) / self._rate  # half full, for more than one request
            self._left -= units
            return 0.0

    def refused(self, seconds: float | None) -> float:
        """Records that the provider throttles, for `seconds` if it gave them, else for longer each time; returns the wait."""
        with self._lock:
            self._refusals += 1
            grown = FIRST_WAIT * 2 ** min(self._refusals - 1, 10) * random.uniform(1, 1.2)  # noqa: S311 - spreads
            wait = min(grown if seconds is None else max(seconds, 1.0), LONGEST_WAIT)
            self._not_before = max(self._not_before, self._clock() + wait)
            return wait

    def accepted(self) -> None:
        """Records that the provider answered a request."""
        with self._lock:
            self._refusals = 0


class Paces:
    """One `Quota` for each mailbox, for as long as the process lives."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._rate, self._burst = per_second, burst
        self._lock = threading.Lock()
        self._paces: dict[int, Quota] = {}

    def of(self, mailbox_id: int) -> Quota:
        """The quota of this mailbox."""
        with self._lock:
            return self._paces.setdefault(mailbox_id, Quota(self._rate, self._burst))
