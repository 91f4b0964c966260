"""How far Postgres is: the time of the shortest of the latest exchanges with it, which is little more than a round trip.

What waits for each answer alone is as slow as the line is long. So those who work in batches take larger ones, or several at
once, when Postgres is far.
"""

from typing import Final

WINDOW: Final = 10.0  # seconds after which an exchange is forgotten, or twice that


class Distance:
    """The shortest exchange of the current and of the last window."""

    def __init__(self) -> None:
        self._ends = 0.0
        self._current = self._last = float("inf")

    def note(self, began: float, ended: float) -> None:
        """Note an exchange that waited for an answer, on the monotonic clock."""
        if ended >= self._ends:
            self._ends, self._last, self._current = ended + WINDOW, self._current, float("inf")
        took = ended - began
        self._current = min(self._current, took)

    def seconds(self) -> float:
        """The round trip as far as is known; 0 if nothing is."""
        shortest = min(self._current, self._last)
        return 0.0 if shortest == float("inf") else shortest


#: Of this process, whose connections all lead to one database.
DISTANCE: Final = Distance()


def round_trip() -> float:
    """Seconds that Postgres is away from this process, there and back, by its latest statements; 0 before the first."""
    return DISTANCE.seconds()
