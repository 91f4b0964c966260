"""When a relay checks which endpoint, and how many of its deliveries may be leased (its window), by its recent throughput.

An endpoint that takes deliveries fast gets a window that keeps it busy between two checks; one that hangs, no more than twice
its `max_in_flight`. This state belongs to one relay and may be lost: it is measured again within a second.
"""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import heapify, heappop, heappush
from typing import Final

from pipeline.claim import Looked
from pipeline.store.deliveries.claims import Page
from pipeline.store.deliveries.notify import ANY
from schemas.allowance import Standing

FEW: Final = 100  # deliveries: the window of an endpoint that is not measured yet, or is not very fast
DRAIN: Final = 5.0  # seconds in which that many must be settled, or the window is smaller
HORIZON: Final = 0.15  # seconds for which a larger window lasts: longer than from a claim until its last delivery is sent
TRIPS: Final = 12  # round trips for which it lasts besides: twice as many as from a claim to the settlement
MOST: Final = 2000  # deliveries: the largest window
TICK: Final = 40  # milliseconds: endpoints with full windows are checked again together, at multiples of this
LATER: Final = 0.25  # seconds until such a check at the latest, at first
LATEST: Final = 2.0  # seconds until it at the latest, after repeated checks without progress
SURVEY: Final = 1.0  # seconds between two surveys, which find due deliveries without a notification
SHARE: Final = 0.2  # of a relay's time for surveys, or little more, when there are many endpoints
REST: Final = (
    30.0  # seconds until the next page or survey at the latest: one that waited for a Postgres that stood still tells nothing
)
AT_ONCE: Final = 200  # endpoints in one round
_STALE: Final = 1000  # outdated entries in a heap before it is rebuilt
_LONG_AGO: Final = datetime(1, 1, 1, tzinfo=UTC)
_HALVES: Final = 0.5  # seconds in which an older measurement loses half its weight


@dataclass(slots=True)
class EndpointPace:
    """The measurements of one endpoint: its leases after the last check, and their rate of settling, in deliveries a second."""

    at: datetime
    leased: int
    rate: float | None = None
    stalled: int = 0  # consecutive checks without progress

    def learn(self, looked: Looked, at: datetime) -> None:
        """Update the measurements from a check: the leases found, and the deliveries claimed."""
        passed = (at - self.at).total_seconds()
        if passed > 0:
            rate = max(0, self.leased - looked.leased) / passed
            self.rate = rate if self.rate is None else max(rate, self.rate * 0.5 ** (passed / _HALVES))
        self.stalled = 0 if looked.claimed or looked.leased < self.leased else self.stalled + 1
        self.at, self.leased = at, looked.leased + looked.claimed

    def window(self, max_in_flight: int, round_trip: float = 0.0) -> int:
        """The most deliveries of the endpoint that may be leased, if Postgres is so many seconds away."""
        if self.rate is None:
            return max(FEW, 2 * max_in_flight)
        horizon = HORIZON + TRIPS * round_trip
        return max(2 * max_in_flight, min(FEW, int(self.rate * DRAIN)), min(MOST, int(self.rate * horizon)))


class _Queue:
    """A priority queue of endpoints by the time of their next check. Outdated heap entries are skipped when they come up."""

    def __init__(self) -> None:
        self._due: dict[int, datetime] = {}
        self._heap: list[tuple[datetime, int]] = []

    def __contains__(self, endpoint_id: int) -> bool:
        return endpoint_id in self._due

    def put(self, endpoint_id: int, due: datetime) -> None:
        """Schedule the endpoint for `due`, in place of any earlier schedule."""
        if self._due.get(endpoint_id) == due:
            return
        self._due[endpoint_id] = due
        if len(self._heap) > 4 * len(self._due) + _STALE:
            self._heap = [(at, each) for each, at in self._due.items()]
            heapify(self._heap)
        else:
            heappush(self._heap, (due, endpoint_id))

    def drop(self, endpoint_id: int) -> None:
        """Remove the endpoint."""
        self._due.pop(endpoint_id, None)

    def drop_between(self, after: int, through: int | None, kept: Container[int]) -> None:
        """Remove the endpoints with ids above `after` and up to `through`, except the `kept`."""
        for each in [each for each in self._due if after < each and (through is None or each <= through) and each not in kept]:
            del self._due[each]

    def first(self, most: int, now: datetime) -> list[int]:
        """At most `most` endpoints that are due, the longest overdue first. They stay in the queue."""
        taken: list[tuple[datetime, int]] = []
        while len(taken) < most and (due := self.next()) is not None and due <= now:
            place = heappop(self._heap)
            if not taken or place != taken[-1]:  # an entry is duplicated if it was moved and moved back
                taken.append(place)
        for place in taken:
            heappush(self._heap, place)
        return [each for _at, each in taken]

    def next(self) -> datetime | None:
        """When the first endpoint is due."""
        while self._heap:
            at, each = self._heap[0]
            if self._due.get(each) == at:
                return at
            heappop(self._heap)
        return None


class CheckSchedule:
    """The schedule of one relay's checks. Times are of the relay's clock.

    Endpoints with due deliveries that may not be claimed yet (a breaker is open, a rate used up, a window full) are `held`:
    they get the places of a round that the others leave, and at least a quarter, so that neither kind starves the other.
    A notification for a held endpoint takes effect when the hold ends, or with the next survey.
    """

    def __init__(self, round_trip: Callable[[], float] = float) -> None:
        """`round_trip`: how many seconds Postgres is away."""
        self._round_trip = round_trip
        self._free = _Queue()
        self._held = _Queue()
        self._full: dict[int, datetime] = {}  # endpoints with full windows -> next check; surveys do not know these
        self._paces: dict[int, EndpointPace] = {}
        self._after = 0  # the last endpoint of the previous page; 0 at the beginning
        self._began = _LONG_AGO  # when the current or last survey began
        self._cost = 0.0  # seconds that its pages took
        self._next_page = _LONG_AGO
        self._asked = True  # whether a survey without pauses is requested
        self._hurried = False  # whether the current survey runs without pauses

    def notified(self, endpoint_ids: Iterable[int], now: datetime) -> None:
        """Note that deliveries are due at these endpoints."""
        for each in endpoint_ids:
            if each == ANY:
                self._ask(now)
            elif each not in self._held:
                self._free.put(each, now)

    def wants_survey(self, now: datetime) -> bool:
        """Whether to query the next page of all endpoints with planned deliveries."""
        return now >= self._next_page

    @property
    def surveyed_through(self) -> int:
        """The last endpoint of the previous page; 0 when a survey is to begin."""
        return self._after

    def surveyed(self, page: Page, now: datetime, seconds: float) -> None:
        """Apply a page of a survey, queried at `now` in `seconds`; keep what checks have found about full windows."""
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
            self._next_page = now if self._hurried else now + timedelta(seconds=min(seconds / SHARE, REST))
        else:
            self._after, self._hurried = 0, False
            self._forget()
            self._next_page = self._rested(now, 1.0 if self._asked else 1 / SHARE, SURVEY)

    def wanted(self, now: datetime) -> list[int]:
        """The endpoints to check now, the longest overdue first."""
        held = self._held.first(AT_ONCE, now)
        free = self._free.first(AT_ONCE - min(len(held), AT_ONCE // 4), now)
        return free + held[: AT_ONCE - len(free)]

    def window(self, standing: Standing) -> int:
        """The most deliveries of the endpoint that may be leased."""
        pace = self._paces.get(standing.endpoint_id)
        return pace.window(standing.max_in_flight, self._round_trip()) if pace else max(FEW, 2 * standing.max_in_flight)

    def looked(self, found: Mapping[int, Looked], missed: Iterable[int], now: datetime) -> None:
        """Apply the results of a round; `missed` are the endpoints that it should have checked and did not."""
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
        """Seconds until the next check or survey."""
        first = min(each for each in (self._free.next(), self._held.next(), self._next_page) if each is not None)
        return max(0.0, (first - now).total_seconds())

    def _ask(self, now: datetime) -> None:
        """Request a survey of all endpoints, as soon as surveys take no more than half of the time."""
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
        """Drop the measurements of endpoints without planned deliveries."""
        for each in [each for each in self._paces if each not in self._free and each not in self._held]:
            del self._paces[each]
            self._full.pop(each, None)

    def _rested(self, now: datetime, times: float, least: float = 0.0) -> datetime:
        """When the next survey may begin: `times` the last one's cost from `now`, and `least` seconds after its beginning."""
        return max(self._began + timedelta(seconds=least), now + timedelta(seconds=min(times * self._cost, REST)))


def _again(looked: Looked, pace: EndpointPace, now: datetime) -> datetime | None:
    """When to check an endpoint again; None if a survey or a notification will schedule it."""
    if looked.look_at is not None:
        return looked.look_at
    if looked.claimed:
        return now if looked.more else None
    if looked.granted:
        return None
    latest = min(LATER * 2 ** min(max(0, pace.stalled - 1), 8), LATEST)
    wait = looked.excess / pace.rate if pace.rate else latest
    return _tick(now + timedelta(seconds=min(max(wait, 0.0), latest)))


def _tick(at: datetime) -> datetime:
    """The first multiple of `TICK` after `at`, so that one round checks many endpoints."""
    milliseconds = int(at.timestamp() * 1000)
    return datetime.fromtimestamp((milliseconds // TICK + 1) * TICK / 1000, at.tzinfo)
