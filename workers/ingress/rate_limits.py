"""The rate limits of sources: token buckets in the memory of one ingress process, which has its share of each limit."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from schemas.catalog import EMPTY
from schemas.source import Source
from workers.ingress.problems import Problem
from workers.live_catalog import CatalogWatch


@dataclass(slots=True)
class Bucket:
    """Fills with `rate` a second, up to what one second brings, or one; so that is the most that comes at once."""

    rate: float
    tokens: float
    at: float  # seconds of the clock

    def fill(self, rate: float, now: float) -> None:
        """Bring it up to `now`, at a rate that may have been changed."""
        self.rate = rate
        self.tokens = min(max(1.0, rate), self.tokens + rate * (now - self.at))
        self.at = now

    @property
    def wait(self) -> float:
        """Seconds until there is a token, 0 when there is one."""
        return max(0.0, (1.0 - self.tokens) / self.rate)


class Limits:
    """Refuses what a source sends beyond its `rate_limit`; sources without one are not to be asked about.

    A limit is for all ingress processes together, and each of `processes` lets its part through, so that together they never
    let through more for long. Nothing is shared or stored: a process that starts has full buckets. There is at most one bucket
    for each source of the catalog that has a limit.
    """

    def __init__(self, catalog: CatalogWatch, processes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._catalog = catalog
        self._processes = processes
        self._clock = clock
        self._known = EMPTY
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def check(self, source: Source, *headers: tuple[str, str]) -> Bucket:
        """Raises `Problem`, with `headers`, when there is no token.

        Takes none: who has not proved yet to be the source must not use its tokens up.
        """
        bucket = self._bucket(source)
        if bucket.tokens < 1.0:
            wait = str(max(1, math.ceil(bucket.wait)))
            detail = f"this source takes {source.rate_limit:.6g} messages a second"
            raise Problem("rate_limited", detail, ("Retry-After", wait), *headers)
        return bucket

    def take(self, source: Source) -> None:
        """Takes a token, or raises `Problem`."""
        self.check(source).tokens -= 1.0

    def __len__(self) -> int:
        return len(self._buckets)

    def _bucket(self, source: Source) -> Bucket:
        assert source.rate_limit is not None
        catalog = self._catalog.current
        if catalog is not self._known:
            limited = {key for key, each in catalog.sources.items() if each.rate_limit is not None}
            self._buckets = {key: bucket for key, bucket in self._buckets.items() if key in limited}
            self._known = catalog
        rate, now = source.rate_limit / self._processes, self._clock()
        key = (source.tenant, source.name)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(rate, max(1.0, rate), now)
        bucket.fill(rate, now)
        return bucket
