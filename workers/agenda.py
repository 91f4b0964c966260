"""When a relay looks at which endpoint, and how much of it may be leased: as much as it can use, by what it did lately.

An endpoint that takes deliveries fast gets a window that keeps it busy between two looks; one that hangs, no more than twice
what it may be sent at once. What a relay knows of that is its own and may be lost: it is learned again within a second.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import nsmallest
from typing import Final

from pipeline.claim import Looked
from pipeline.room import Standing
from pipeline.store.bell import ANY

FEW: Final = 100  # deliveries: the window of an endpoint that nothing is known of yet, or that is not very fast
DRAIN: Final = 5.0  # seconds in which those must be settled, or the window is smaller
HORIZON: Final = 0.15  # seconds that a larger one lasts: from a claim until its last delivery is sent, and some more
MOST: Final = 2000  # of one endpoint
TICK: Final = 40  # milliseconds: endpoints whose windows are full are looked at again together, on a multiple of these
LATER: Final = 0.25  # and at the latest
SURVEY: Final = 1.0  # seconds between two surveys: what nobody rang for is seen then
AT_ONCE: Final = 200  # endpoints in one round
_HALVES: Final = 0.5  # seconds in which what was measured before loses half its weight


@dataclass(slots=True)
class Pace:
    """What is known of one endpoint: its leases after the last look, and how fast they are settled, in deliveries a second."""

    at: datetime
    leased: int
    rate: float | None = None

    def learn(self, leased: int, at: datetime) -> None:
        """See how many leases there are now."""
        passed = (at - self.at).total_seconds()
        if passed > 0:
            rate = max(0, self.leased - leased) / passed
            self.rate = rate if self.rate is None else max(rate, self.rate * 0.5 ** (passed / _HALVES))

    def window(self, max_in_flight: int) -> int:
        """The most of the endpoint that may be leased."""
        if self.rate is None:
            return max(FEW, 2 * max_in_flight)
        return max(2 * max_in_flight, min(FEW, int(self.rate * DRAIN)), min(MOST, int(self.rate * HORIZON)))


class Agenda:
    """What one relay has to look at. Times are of the relay's clock."""

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

    def wanted(self, now: datetime) -> list[int]:
        """The endpoints to look at now, those first that have waited longest for it."""
        return nsmallest(AT_ONCE, (each for each, due in self._due.items() if due <= now), key=self._due.__getitem__)

    def window(self, standing: Standing) -> int:
        """The most of the endpoint that may be leased."""
        pace = self._paces.get(standing.endpoint_id)
        return pace.window(standing.max_in_flight) if pace else max(FEW, 2 * standing.max_in_flight)

    def looked(self, found: Mapping[int, Looked], missed: Iterable[int], now: datetime) -> None:
        """Take over what a round found; `missed` are the endpoints that it was to look at and could not, or need not."""
        for each in missed:
            self._due.pop(each, None)
        for each, looked in found.items():
            pace = self._paces.setdefault(each, Pace(now, looked.leased))
            pace.learn(looked.leased, now)
            pace.at, pace.leased = now, looked.leased + looked.claimed
            again = _again(looked, pace, now)
            if again is None:
                self._due.pop(each, None)
            else:
                self._due[each] = again

    def pause(self, now: datetime) -> float:
        """Seconds until there is something to look at."""
        if self._surveyed is None:
            return 0.0
        first = min(self._due.values(), default=now + timedelta(seconds=SURVEY))
        survey = self._surveyed + timedelta(seconds=SURVEY)
        return max(0.0, (min(first, survey) - now).total_seconds())


def _again(looked: Looked, pace: Pace, now: datetime) -> datetime | None:
    """When to look at an endpoint again; None when a survey or a bell will say so."""
    if looked.look_at is not None:
        return looked.look_at
    if looked.claimed:
        return now if looked.more else None
    if looked.granted:
        return None
    wait = looked.excess / pace.rate if pace.rate else LATER
    return _tick(now + timedelta(seconds=min(max(wait, 0.0), LATER)))


def _tick(at: datetime) -> datetime:
    """The first multiple of `TICK` after `at`: one round for many endpoints instead of one for each."""
    milliseconds = int(at.timestamp() * 1000)
    return datetime.fromtimestamp((milliseconds // TICK + 1) * TICK / 1000, at.tzinfo)
