"""Deletes what nobody needs any more of sessions and rates, a bounded number at a time."""

import time
from collections.abc import Callable
from typing import Final

from sqlalchemy import Engine

from ops.admin.access import rates, sessions

EVERY: Final = 60.0  # seconds
SOON: Final = 1.0  # while there is more
MOST: Final = 1000  # at once


class Sweeping:
    """Sweeps once a minute, or once a second while there is more than a round can do."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._due_at = clock()

    def turn(self) -> int:
        """Deletes what there is, if that is due; returns how much of one kind at most."""
        if self._clock() < self._due_at:
            return 0
        swept = max(sessions.sweep(self._engine, MOST), rates.sweep(self._engine, MOST))
        self._due_at = self._clock() + (EVERY if swept < MOST else SOON)
        return swept
