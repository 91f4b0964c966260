"""Which of several sealers seals: the one whose session holds an advisory lock."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ops.runtime.background import Chore
from ops.runtime.db import Connection, Engine
from pipeline.store.log import checkpoints

FROZEN: Final = 20.0  # seconds that the leader may stand still; then Postgres ends its session, and another one leads
_KEEPS: Final = 5  # signs of life within that time


class Deposed(Exception):
    """Postgres has ended the session that held the lock: another process may seal, and this one must publish nothing more."""


class Lead:
    """The lock. A thread uses its session now and then, so that only a process that stands still loses it while it is held."""

    def __init__(self, engine: Engine, frozen: float = FROZEN) -> None:
        self._engine = engine
        self._frozen = frozen
        self._lock = threading.RLock()
        self._conn: Connection | None = None
        self._term = 0
        self._keeping: Chore | None = None

    def take(self) -> bool:
        """Whether this process leads; it does so from now on if nobody else does. Raises database errors."""
        with self._lock:
            if self._conn is not None and self._conn.invalidated:
                self.release()
            if self._conn is None:
                self._conn = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            if not checkpoints.lead(self._conn, self._frozen):
                return False
            if self._keeping is None:
                self._term += 1
                self._keeping = Chore("lead", self._frozen / _KEEPS, self._keep)
            return True

    def fence(self) -> Callable[[], None]:
        """A check, for as long as this process leads: it raises `Deposed` when that has ended, even if it began again."""
        return lambda term=self._term: self._check(term)  # type: ignore[misc]

    def release(self) -> None:
        """Let another process lead."""
        with self._lock:
            keeping, self._keeping = self._keeping, None
            conn, self._conn = self._conn, None
        if keeping is not None:
            keeping.close()
        if conn is not None:
            conn.invalidate()  # a session that holds a lock must not go back to the pool
            conn.close()

    def _check(self, term: int) -> None:
        with self._lock:
            if term != self._term or not self._alive():
                raise Deposed("another process may seal")

    def _keep(self) -> None:
        with self._lock:
            self._alive()

    def _alive(self) -> bool:
        """Whether the session is the one that got the lock. One that was lost is not opened again before `release`."""
        if self._conn is None or self._conn.invalidated:
            return False
        with suppress(Exception):  # whatever it is, the session cannot be relied on
            return checkpoints.lead(self._conn, self._frozen)
        self._conn.invalidate()
        return False
