"""Priority of one thread over another that shares its interpreter lock: the other works while the first awaits Postgres."""

import threading
import time
from collections.abc import Generator
from typing import Any, Final, TypeVar

from ops.runtime.driver import db_deadline

_PATIENCE: Final = 0.01  # seconds after which the thread of lower priority goes on all the same
_LONGEST: Final = 1.0  # seconds without Postgres, after which the first thread is taken to wait for something else

_Result = TypeVar("_Result")


class ThreadPriority:
    """Gives the thread that uses `connections` priority over the one that calls `yield_to_first` before each step.

    Without it the two share the interpreter lock evenly while both have work, so that the database waits for rows while the
    other thread reads messages that are not needed yet.
    """

    def __init__(self) -> None:
        self._free = threading.Event()
        self._free.set()
        self._since = 0.0  # monotonic seconds: when the first thread last came back from Postgres

    @property
    def connections(self) -> type[db_deadline.Connection]:
        """The class of the first thread's connections to Postgres."""
        free, came_back = self._free, self._come_back

        class Connection(db_deadline.Connection):
            def wait(self, gen: Generator[Any, Any, _Result], *args: Any, **options: Any) -> _Result:
                free.set()
                try:
                    return super().wait(gen, *args, **options)
                finally:
                    came_back()

        return Connection

    def yield_to_first(self) -> None:
        """Return when the first thread waits for Postgres or has nothing to do, after 10 ms at the latest.

        At once when that thread has not used Postgres for a second: then it waits for a blob store, or to connect again.
        """
        if not self._free.is_set() and time.monotonic() - self._since < _LONGEST:
            self._free.wait(_PATIENCE)

    def done(self) -> None:
        """Note that the first thread has nothing to do."""
        self._free.set()

    def _come_back(self) -> None:
        self._since = time.monotonic()
        self._free.clear()
