"""The rate limits of sources: token buckets in the memory of one ingress process, which enforces its share of each limit."""

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
    """A token bucket: gains `rate` tokens a second and holds one second's worth, or one token if that is more."""

    rate: float
    tokens: float
    at: float  # seconds of the clock

    def fill(self, rate: float, now: float) -> None:
        """Add the tokens gained until `now`, at a rate that may have changed."""
        self.rate = rate
        self.tokens = min(max(1.0, rate), self.tokens + rate * (now - self.at))
        self.at = now

    @property
    def wait(self) -> float:
        """Seconds until there is a token, 0 when there is one."""
        return max(0.0, (1.0 - self.tokens) / self.rate)


class Limits:
    """Refuses messages beyond a source's `rate_limit`; call it only for sources that have one.

    A limit is for all ingress processes together, and each of `processes` allows its share, so that together they do not
    exceed it for long. Nothing is shared or stored: a process starts with full buckets. There is at most one bucket
    for each source of the catalog that has a limit.
    """

    def __init__(self, catalog: CatalogWatch, processes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._catalog = catalog
        self._processes = processes
        self._clock = clock
        self._known = EMPTY
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def check(self, source: Source, *headers: tuple[str, str]) -> Bucket:
        """Raise `Problem`, with `headers`, when there is no token.

        Takes no token: a sender whose signature is not verified yet must not use up the source's tokens.
        """
        bucket = self._bucket(source)
        if bucket.tokens < 1.0:
            wait = str(max(1, math.ceil(bucket.wait)))
            detail = f"this source takes {source.rate_limit:.6g} messages a second"
            raise Problem("rate_limited", detail, ("Retry-After", wait), *headers)
        return bucket

    def take(self, source: Source) -> None:
        """Take a token. Raises `Problem` when there is none."""
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
