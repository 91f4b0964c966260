"""Decides which failures of a batch to retry, and how to report them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tenacity import RetryCallState, wait_exponential_jitter

from ops.errors import OpsError, one_line
from ops.runtime.db import constraint, damaged, passes, sqlstate
from pipeline.errors import BlobsAway
from workers.ingest.judged import Refusal

FINGERPRINT: Final = "entry_fingerprint_key"  # the constraint that two writers violate by recording one event concurrently

_BACKOFF: Final = wait_exponential_jitter(multiplier=0.05, max=3.0, jitter=0.5)

RACES = 5  # times that the batch may lose a race with another writer before it counts as faulty


class Stopped(Exception):
    """The process must end; messages that were not committed return to the broker."""


class DatabaseDamaged(Exception):
    """Postgres cannot use files that every message needs: wait until somebody mends them."""


def is_race(error: BaseException) -> bool:
    """Whether another writer has recorded an event of the batch meanwhile; at the next attempt it is a duplicate."""
    return constraint(error) == FINGERPRINT


class Failures:
    """Counts the failures of one batch, and decides whether to retry it unchanged. `alone`: it is a single message."""

    def __init__(self, *, alone: bool = True) -> None:
        self._alone = alone
        self.seen = 0
        self._races = 0
        self._faults = 0

    def may_pass(self, error: BaseException) -> bool:
        """Whether to retry: always if a server or this machine is at fault, a few times for a race, once for other errors."""
        if isinstance(error, Stopped | OpsError) or not isinstance(error, Exception):
            return False
        self.seen += 1
        if is_race(error):
            self._races += 1
            return self._races < RACES
        if passes(error) or isinstance(error, BlobsAway | DatabaseDamaged | OSError):
            return True
        if damaged(error) and not self._alone:
            return False  # its halves are retried
        self._faults += 1
        return self._faults < 2


def fatal(error: Exception) -> Refusal:
    """The refusal of a message that cannot be recorded because of `error`."""
    if damaged(error):
        detail = f"Postgres cannot read or write its rows: {one_line(error)}: mend the database, then "
        return Refusal("append", "chain_broken", detail + "`waxseal dead replay --reason chain_broken`", sqlstate(error))
    return Refusal("append", "poison", one_line(error), sqlstate(error) or type(error).__name__)


def pause(state: RetryCallState) -> float:
    """Seconds until the next try: none after an error that waiting does not mend, so that the fault is isolated quickly."""
    error = state.outcome.exception() if state.outcome else None
    return 0.0 if error is not None and damaged(error) else _BACKOFF(state)


@contextmanager
def for_every_message() -> Iterator[None]:
    """Raises `DatabaseDamaged` for damaged storage: what runs in the block does not depend on the message."""
    try:
        yield
    except Exception as error:
        if damaged(error):
            raise DatabaseDamaged(one_line(error)) from error
        raise
