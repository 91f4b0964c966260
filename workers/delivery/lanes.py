"""The lane of each endpoint: how many of its deliveries are sent at once. And what is loaded ahead of a place in it.

A place that waits for Postgres is taken in vain, for as long as Postgres is far. So far from it, small bodies are loaded first.
"""

from collections import defaultdict
from collections.abc import Callable, Container
from functools import partial
from typing import Final

from ops.runtime.driver.db_distance import round_trip
from workers.delivery.weighted_semaphore import WeightedSemaphore

AHEAD: Final = 256 * 1024  # bytes of an endpoint's bodies that are loaded, or being loaded, and have no place yet
LARGEST: Final = 8 * 1024  # bytes of such a body
FAR: Final = 0.002  # seconds that Postgres is away

Leave = Callable[[], None]


class Lanes:
    """On one event loop. Deadlines are on its clock; who is not admitted by then gets None, else the call that leaves."""

    def __init__(self) -> None:
        self._lanes: defaultdict[int, WeightedSemaphore] = defaultdict(WeightedSemaphore)
        self._ahead: defaultdict[int, WeightedSemaphore] = defaultdict(WeightedSemaphore)

    async def enter(self, endpoint_id: int, most: int, deadline: float) -> Leave | None:
        """Wait for one of the `most` places in the endpoint's lane."""
        return await _entered(self._lanes[endpoint_id], 1, most, deadline)

    async def load_ahead(self, endpoint_id: int, size: int, deadline: float) -> Leave | None:
        """Wait until a body of `size` bytes may be loaded ahead."""
        return await _entered(self._ahead[endpoint_id], size, AHEAD, deadline)

    def keep(self, endpoint_ids: Container[int]) -> None:
        """Drop the lanes of all other endpoints, in which nobody is."""
        for lanes in (self._lanes, self._ahead):
            for id_ in [each for each in lanes if each not in endpoint_ids]:
                del lanes[id_]


def may_load_ahead(size: int) -> bool:
    """Whether a body of `size` bytes is to be loaded before there is a place in its lane."""
    return size <= LARGEST and round_trip() > FAR


async def _entered(places: WeightedSemaphore, weight: int, most: int, deadline: float) -> Leave | None:
    if places.try_enter(weight, most) or await places.enter(weight, most, deadline):
        return partial(places.leave, weight)
    return None
