"""When a relay looks at which endpoint, and how much of it may be leased: as much as it can use, by what it did lately.

An endpoint that takes deliveries fast gets a window that keeps it busy between two looks; one that hangs, no more than twice
what it may be sent at once. What a relay knows of that is its own and may be lost: it is learned again within a second.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import heapify, heappop, heappush
from typing import Final

from pipeline.claim import Looked
from pipeline.store.deliveries.claims import Page
from pipeline.store.deliveries.notify import ANY
from schemas.allowance import Standing

FEW: Final = 100  # deliveries: the window of an endpoint that nothing is known of yet, or that is not very fast
DRAIN: Final = 5.0  # seconds in which those must be settled, or the window is smaller
HORIZON: Final = 0.15  # seconds that a larger one lasts: from a claim until its last delivery is sent, and some more
MOST: Final = 2000  # of one endpoint
TICK: Final = 40  # milliseconds: endpoints whose windows are full are looked at again together, on a multiple of these
LATER: Final = 0.25  # and at the latest, at first
LATEST: Final = 2.0  # at the latest, when nothing has moved again and again
SURVEY: Final = 1.0  # seconds between two surveys: what nobody rang for is seen then
SHARE: Final = 0.2  # of a relay's time for surveys at most, when there are many endpoints
AT_ONCE: Final = 200  # endpoints in one round
_STALE: Final = 1000  # places in a queue that were changed, before it is made anew
_LONG_AGO: Final = datetime(1, 1, 1, tzinfo=UTC)
_HALVES: Final = 0.5  # seconds in which what was measured before loses half its weight


@dataclass(slots=True)
class EndpointPace:
    """What is known of one endpoint: its leases after the last look, and how fast they are settled, in deliveries a second."""

    at: datetime
    leased: int
    rate: float | None = None
    vain: int = 0  # looks in a row at which nothing had moved

    def learn(self, looked: Looked, at: datetime) -> None:
        """See how many leases there are now, and what was claimed."""
        passed = (at - self.at).total_seconds()
        if passed > 0:
            rate = max(0, self.leased - looked.leased) / passed
            self.rate = rate if self.rate is None else max(rate, self.rate * 0.5 ** (passed / _HALVES))
        self.vain = 0 if looked.claimed or looked.leased < self.leased else self.vain + 1
        self.at, self.leased = at, looked.leased + looked.claimed

    def window(self, max_in_flight: int) -> int:
        """The most of the endpoint that may be leased."""
        if self.rate is None:
            return max(FEW, 2 * max_in_flight)
        return max(2 * max_in_flight, min(FEW, int(self.rate * DRAIN)), min(MOST, int(self.rate * HORIZON)))


class _Queue:
    """Endpoints by the time at which to look at them. A place that was changed since is passed over when it comes up."""

    def __init__(self) -> None:
        self._due: dict[int, datetime] = {}
        self._heap: list[tuple[datetime, int]] = []

    def __contains__(self, endpoint_id: int) -> bool:
        return endpoint_id in self._due

    def put(self, endpoint_id: int, due: datetime) -> None:
        """Look at it then, and at no other time."""
        if self._due.get(endpoint_id) == due:
            return
        self._due[endpoint_id] = due
        if len(self._heap) > 4 * len(self._due) + _STALE:
            self._heap = [(at, each) for each, at in self._due.items()]
            heapify(self._heap)
        else:
            heappush(self._heap, (due, endpoint_id))

    def drop(self, endpoint_id: int) -> None:
        """Look at it no more."""
        self._due.pop(endpoint_id, None)

    def drop_between(self, after: int, through: int | None, kept: Container[int]) -> None:
        """Look no more at those with ids above `after` and up to `through`, but for the `kept`."""
        for each in [each for each in self._due if after < each and (through is None or each <= through) and each not in kept]:
            del self._due[each]

    def first(self, most: int, now: datetime) -> list[int]:
        """Those that are due, `most` at most, those first that have waited longest. They stay."""
        taken: list[tuple[datetime, int]] = []
        while len(taken) < most and (due := self.next()) is not None and due <= now:
            place = heappop(self._heap)
            if not taken or place != taken[-1]:  # it may stand there twice, when it was moved and moved back
                taken.append(place)
        for place in taken:
            heappush(self._heap, place)
        return [each for _at, each in taken]

    def next(self) -> datetime | None:
        """When the first of them is due."""
        while self._heap:
            at, each = self._heap[0]
            if self._due.get(each) == at:
                return at
            heappop(self._heap)
        return None


class Agenda:
    """What one relay has to look at. Times are of the relay's clock.

    Endpoints at which something is due that may not be claimed yet (a breaker is open, a rate used up, a window full) are
    `held`: they get what the others leave of a round, and a quarter of it at least, so that any number of them keeps nobody
    waiting. What rings for them is heard when the hold ends, and by the next survey.
    """

    def __init__(self) -> None:
        self._free = _Queue()
        self._held = _Queue()
        self._full: dict[int, datetime] = {}  # windows that are full: when to look again, which no survey knows
        self._paces: dict[int, EndpointPace] = {}
        self._after = 0  # the last endpoint of the page before, or the beginning
        self._began = _LONG_AGO  # the survey that is under way, or was the last
        self._cost = 0.0  # seconds that its pages took
        self._next_page = _LONG_AGO
        self._asked = True  # for a survey without pauses
        self._hurried = False  # the one that is under way

    def ring(self, endpoint_ids: Iterable[int], now: datetime) -> None:
        """Something is due at these endpoints."""
        for each in endpoint_ids:
            if each == ANY:
                self._ask(now)
            elif each not in self._held:
                self._free.put(each, now)

    def wants_survey(self, now: datetime) -> bool:
        """Whether it is time to ask for the next page of all endpoints at which something is planned."""
        return now >= self._next_page

    @property
    def surveyed_through(self) -> int:
        """The last endpoint of the page before; 0 when a survey is to begin."""
        return self._after

    def surveyed(self, page: Page, now: datetime, seconds: float) -> None:
        """Take over what a page of a survey found, asked for at `now` in so many seconds; keep what a look has taught."""
        if not self._after:
            self._began, self._cost = now, 0.0
            self._hurried, self._asked = self._asked, False
        self._cost += seconds
        for each, due in page.dues.items():
            full = self._full.get(each)
            self._place(each, max(due.at, full or due.at), held=due.held or full is not None)
        for queue in (self._free, self._held):
            queue.drop_between(self._after, page.through, page.dues)
        if page.through is not None:
            self._after = page.through
            self._next_page = now if self._hurried else now + timedelta(seconds=seconds / SHARE)
        else:
            self._after, self._hurried = 0, False
            self._forget()
            self._next_page = self._rested(now, 1.0 if self._asked else 1 / SHARE, SURVEY)

    def wanted(self, now: datetime) -> list[int]:
        """The endpoints to look at now, those first that have waited longest for it."""
        held = self._held.first(AT_ONCE, now)
        free = self._free.first(AT_ONCE - min(len(held), AT_ONCE // 4), now)
        return free + held[: AT_ONCE - len(free)]

    def window(self, standing: Standing) -> int:
        """The most of the endpoint that may be leased."""
        pace = self._paces.get(standing.endpoint_id)
        return pace.window(standing.max_in_flight) if pace else max(FEW, 2 * standing.max_in_flight)

    def looked(self, found: Mapping[int, Looked], missed: Iterable[int], now: datetime) -> None:
        """Take over what a round found; `missed` are the endpoints that it was to look at and could not, or need not."""
        for each in missed:
            self._drop(each)
        for each, looked in found.items():
            pace = self._paces.setdefault(each, EndpointPace(now, looked.leased))
            pace.learn(looked, now)
            again = _again(looked, pace, now)
            if again is None:
                self._drop(each)
            else:
                self._place(each, again, held=looked.held)
                if looked.held and looked.look_at is None:
                    self._full[each] = again
                else:
                    self._full.pop(each, None)

    def pause(self, now: datetime) -> float:
        """Seconds until there is something to look at."""
        first = min(each for each in (self._free.next(), self._held.next(), self._next_page) if each is not None)
        return max(0.0, (first - now).total_seconds())

    def _ask(self, now: datetime) -> None:
        """Survey all, as soon as the last survey does not take more than half of the time."""
        self._asked = True
        if self._after:
            self._hurried, self._next_page = True, now
        else:
            self._next_page = min(self._next_page, self._rested(now, 1.0))

    def _place(self, endpoint_id: int, due: datetime, *, held: bool) -> None:
        (self._free if held else self._held).drop(endpoint_id)
        (self._held if held else self._free).put(endpoint_id, due)

    def _drop(self, endpoint_id: int) -> None:
        self._free.drop(endpoint_id)
        self._held.drop(endpoint_id)
        self._full.pop(endpoint_id, None)

    def _forget(self) -> None:
        """All that is known of endpoints at which nothing is planned any more."""
        for each in [each for each in self._paces if each not in self._free and each not in self._held]:
            del self._paces[each]
            self._full.pop(each, None)

    def _rested(self, now: datetime, times: float, least: float = 0.0) -> datetime:
        """When the next survey may begin: `times` what the last one took after its end, and `least` seconds after it began."""
        return max(self._began + timedelta(seconds=least), now + timedelta(seconds=times * self._cost))


def _again(looked: Looked, pace: EndpointPace, now: datetime) -> datetime | None:
    """When to look at an endpoint again; None when a survey or a bell will say so."""
    if looked.look_at is not None:
        return looked.look_at
    if looked.claimed:
        return now if looked.more else None
    if looked.granted:
        return None
    latest = min(LATER * 2 ** min(max(0, pace.vain - 1), 8), LATEST)
    wait = looked.excess / pace.rate if pace.rate else latest
    return _tick(now + timedelta(seconds=min(max(wait, 0.0), latest)))


def _tick(at: datetime) -> datetime:
    """The first multiple of `TICK` after `at`: one round for many endpoints instead of one for each."""
    milliseconds = int(at.timestamp() * 1000)
    return datetime.fromtimestamp((milliseconds // TICK + 1) * TICK / 1000, at.tzinfo)
