"""Which failures of a batch are worth another try, and what a person is told of them."""

from ops.errors import OpsError
from ops.runtime.db import passes
from pipeline.errors import BlobsAway
from workers.ingest.chains_aside import is_race

RACES = 5  # times that another writer may have recorded the same event in between, before the batch is held to be at fault


class Stopped(Exception):
    """The process is to end: what was not committed goes back to the broker."""


class Failures:
    """Counts what went wrong with one batch, and says whether to try it again as it is."""

    def __init__(self) -> None:
        self.seen = 0
        self._races = 0
        self._faults = 0

    def may_pass(self, error: BaseException) -> bool:
        """Whether to try again: always when a server or this machine is at fault, a few times for a race, once for the rest."""
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
    """What went wrong, as the server said it, without what was sent."""
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
