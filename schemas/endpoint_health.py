"""How an endpoint fares, as all processes share it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Breaker = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of an endpoint's failures. As it begins: nothing ever failed."""

    breaker: Breaker = "closed"
    forced: bool = False  # by an operator: the breaker stays as it is
    opened_at: datetime | None = None  # since when it is not closed
    probe_at: datetime | None = None  # when an open one lets one delivery through; None if it is forced
    trips: int = 0  # in a row, without a success between
    window_from: datetime | None = None  # the first failure that the two counts below begin with
    successes: int = 0
    failures: int = 0
    not_before: datetime | None = None  # until then the whole endpoint waits, as it asked
    throttles: int = 0  # in a row
    failing_since: datetime | None = None  # of nothing but failures
    streak: int = 0  # how many since then
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What one settlement saw of an endpoint. What failed by our own fault is not in it."""

    successes: int = 0
    failures: int = 0
    busy: int = 0  # of the failures, those that answered 429: it works, and only wants less
    throttled: bool = False  # some asked to slow down
    hint: float | None = None  # the longest Retry-After among those, in seconds
    error: str | None = None  # of the last failure
