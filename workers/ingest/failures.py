"""Decides which failures of a batch to retry, and how to report them."""

from ops.errors import OpsError
from ops.runtime.db import passes
from pipeline.errors import BlobsAway
from workers.ingest.chains_aside import is_race

RACES = 5  # times that the batch may lose a race with another writer before it counts as faulty


class Stopped(Exception):
    """The process must end; messages that were not committed return to the broker."""


class Failures:
    """Counts the failures of one batch, and decides whether to retry it unchanged."""

    def __init__(self) -> None:
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
        if passes(error) or isinstance(error, BlobsAway | OSError):
            return True
        self._faults += 1
        return self._faults < 2


def one_line(error: BaseException | None) -> str:
    """The first line of the server's error message, without the SQL parameters."""
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
