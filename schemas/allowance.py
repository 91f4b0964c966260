"""What may be claimed of an endpoint: how it stands, and how many of each lane are allowed."""

from dataclasses import dataclass, field
from datetime import datetime

from schemas.endpoint import EndpointState
from schemas.endpoint_health import Health


@dataclass(frozen=True, slots=True)
class Standing:
    """What must be known of an endpoint before anything of it is claimed."""

    endpoint_id: int
    state: EndpointState
    max_in_flight: int
    rate_limit: float | None  # deliveries a second
    leased: int
    first_due: datetime | None  # of what was never tried
    again_due: datetime | None  # of what is to be tried again
    tokens: float | None = None  # of the rate's bucket, at tokens_at
    tokens_at: datetime | None = None
    health: Health = field(default_factory=Health)

    @property
    def dues(self) -> tuple[datetime | None, datetime | None]:
        """When the first of each lane is due."""
        return self.first_due, self.again_due

    @property
    def guarded(self) -> bool:
        """Whether two claimants at once could take too much: then its health has to be locked first."""
        return self.rate_limit is not None or self.health.breaker != "closed"


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many of each lane may be claimed; when there is none, `look_at` says when there may be, if that is known."""

    first: int = 0
    again: int = 0
    look_at: datetime | None = None

    @property
    def total(self) -> int:
        """Of both lanes."""
        return self.first + self.again
