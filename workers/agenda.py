"""When a relay looks at which endpoint, and how much of it may be leased: as much as it can use, by what it did lately.

An endpoint that takes deliveries fast gets a window that keeps it busy between two looks; one that hangs, no more than twice
what it may be sent at once. What a relay knows of that is its own and may be lost: it is learned again within a second.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pipeline.claim import Looked
from pipeline.store.bell import ANY

START: Final = 100  # deliveries of an endpoint that nothing is known of yet
HORIZON: Final = 0.15  # seconds that a window lasts: from a claim until its last delivery is sent, and some more
MOST: Final = 2000  # of one endpoint
SOON, LATER: Final = 0.01, 0.25  # seconds until an endpoint whose window is full is looked at again
SURVEY: Final = 1.0  # seconds between two surveys: what nobody rang for is seen then
AT_ONCE: Final = 200  # endpoints in one round
_FADES: Final = 0.5  # seconds in which what was measured before loses half its weight


@dataclass(slots=True)
class Pace:
    """What is known of one endpoint: its leases after the last look, and how fast they are settled, in deliveries a second."""

    at: float
    leased: int
    rate: float | None = None

    def settled(self, leased: int, at: float) -> None:
        """Learn from how many leases there are now."""
        passed = at - self.at
        if passed <= 0:
            return
        rate = max(0, self.leased - leased) / passed
        weight = 0.5 ** (passed / _FADES)
        self.rate = rate if self.rate is None else max(rate, self.rate * weight)

    def window(self, max_in_flight: int) -> int:
        """The most of the endpoint that may be leased."""
        if self.rate is None:
            return max(START, 2 * max_in_flight)
        return max(2 * max_in_flight, min(MOST, int(self.rate * HORIZON)))


class Agenda:
    """What one relay has to look at. Times as datetimes, of the relay's clock."""

    def __init__(self) -> None:
        self._due: dict[int, datetime] = {}
        self._paces: dict[int, Pace] = {}
        self._surveyed: datetime | None = None

    def ring(self, endpoint_ids: Iterable[int], now: datetime) -> None:
        """Something is due at these endpoints."""
        for each in endpoint_ids:
            if each == ANY:
                self._surveyed = None
            else:
                self._due[each] = now

    def wants_survey(self, now: datetime) -> bool:
        """Whether it is time to ask for all endpoints at which something is planned."""
        return self._surveyed is None or (now - self._surveyed).total_seconds() >= SURVEY

    def surveyed(self, dues: Mapping[int, datetime], now: datetime) -> None:
        """Take over what a survey found; forget everything else."""
        self._due = dict(dues)
        self._paces = {each: pace for each, pace in self._paces.items() if each in dues}
        self._surveyed = now
