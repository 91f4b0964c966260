"""The health of an endpoint, which all processes share."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Breaker = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of an endpoint's failures. The default: nothing has ever failed."""

    breaker: Breaker = "closed"
    forced: bool = False  # an operator fixed the breaker: it stays as it is
    opened_at: datetime | None = None  # when it left the closed state
    probe_at: datetime | None = None  # when an open breaker lets one delivery through; None if it is forced
    trips: int = 0  # times it opened in a row, without a success in between
    window_from: datetime | None = None  # the first failure in the two counts below
    successes: int = 0
    failures: int = 0
    not_before: datetime | None = None  # the endpoint asked that nothing is sent until then
    throttles: int = 0  # requests to slow down, in a row
    failing_since: datetime | None = None  # the first failure since the last success
    streak: int = 0  # failures since then
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """The results of one settlement for an endpoint. Failures of our own (`schemas.delivery.OURS`) are not counted."""

    successes: int = 0
    failures: int = 0
    busy: int = 0  # failures with status 429: the endpoint works, and only wants fewer requests
    throttled: bool = False  # some responses asked to slow down
    hint: float | None = None  # the longest Retry-After among those, in seconds
    error: str | None = None  # of the last failure
