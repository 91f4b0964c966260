"""How much may be claimed of an endpoint: its current state, and how many deliveries of each lane are allowed."""

from dataclasses import dataclass, field
from datetime import datetime

from schemas.endpoint import EndpointState
from schemas.endpoint_health import Health


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of an endpoint that decides how many of its deliveries may be claimed."""

    endpoint_id: int
    state: EndpointState
    max_in_flight: int
    rate_limit: float | None  # deliveries a second
    leased: int
    first_due: datetime | None  # earliest due time among deliveries never tried
    again_due: datetime | None  # earliest due time among deliveries to be retried
    tokens: float | None = None  # in the rate limit's token bucket, as of tokens_at
    tokens_at: datetime | None = None
    health: Health = field(default_factory=Health)

    @property
    def dues(self) -> tuple[datetime | None, datetime | None]:
        """The earliest due time of each lane: first tries, then retries."""
        return self.first_due, self.again_due

    @property
    def guarded(self) -> bool:
        """Whether two concurrent claimants could claim too much, so that its health row must be locked first."""
        return self.rate_limit is not None or self.health.breaker != "closed"


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many of each lane may be claimed; if none, `look_at` is when some may be allowed again, if that is known."""

    first: int = 0
    again: int = 0
    look_at: datetime | None = None

    @property
    def total(self) -> int:
        """The sum of both lanes."""
        return self.first + self.again
