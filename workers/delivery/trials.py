"""Which endpoints are on trial: those whose last try was not delivered, or that were not tried since this process started.

Thousands of them may be about to hang or fail. Those that are proven neither wait for them in the queue of the broker nor share
the event loop, the loader and the files with more than a few at once.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from workers.delivery.weighted_semaphore import WeightedSemaphore

AT_ONCE: Final = 500  # deliveries on trial that are loaded and sent, each for `SECONDS` at most
SECONDS: Final = 0.5  # after which a delivery gives its place to the next: many endpoints that hang must not stop the trials
AWAITED: Final = 8  # batches that threads may wait for because of deliveries on trial, a quarter of the threads by default


class Trials:
    """On one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._places = WeightedSemaphore()
        self.proven: set[int] = set()  # the endpoints that are not on trial

    def tried(self, endpoint_id: int, *, delivered: bool) -> None:
        """Note the result of a try."""
        if delivered:
            self.proven.add(endpoint_id)
        else:
            self.proven.discard(endpoint_id)

    async def enter(self, deadline: float) -> Callable[[], None] | None:
        """Wait for a place until the loop's clock shows `deadline`; give the call that leaves it, or None."""
        places = self._places
        if not (places.try_enter(1, AT_ONCE) or await places.enter(1, AT_ONCE, deadline)):
            return None
        return _Place(self._loop, places).leave


class _Place:
    """A place that is given up once: at `leave` or after `SECONDS`, whichever comes first."""

    __slots__ = ("_places", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, places: WeightedSemaphore) -> None:
        self._places: WeightedSemaphore | None = places
        self._timer = loop.call_later(SECONDS, self.leave)

    def leave(self) -> None:
        self._timer.cancel()
        if self._places is not None:
            places, self._places = self._places, None
            places.leave(1)
