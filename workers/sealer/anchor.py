"""What every kind of anchor does: it looks whether it has a log's checkpoint, and it takes one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from pipeline.ledger.checkpoint import Checkpoint
from pipeline.ledger.judge import Outside
from pipeline.store.log.checkpoints import OpenLog

SECONDS: Final = 10.0  # limit of one call to an anchor


class NotAnchored(Exception):
    """The place answered, and did not take the checkpoint, or gave something that does not verify."""


class Contradicted(Exception):
    """The place has a checkpoint of the log that the log does not continue."""

    def __init__(self, seen: Outside) -> None:
        super().__init__(f"{seen.place} has another checkpoint of size {seen.size}")
        self.seen = seen


class Disputed(Exception):
    """The place says that it has a checkpoint that the log does not continue, and nobody has signed that it has.

    `seen` is what it could show in its place, a signed checkpoint that the log may well continue.
    """

    def __init__(self, said: str, seen: Outside | None) -> None:
        super().__init__(said)
        self.seen = seen


@dataclass(frozen=True, slots=True)
class Known:
    """A log with its published checkpoint, if there is one.

    `note` is that checkpoint as it was first signed, `signed` as the keys sign it that are active now. `anchored` is the
    largest size that is known to be anchored at the place; `read` reads the published files.
    """

    log: OpenLog
    checkpoint: Checkpoint | None
    note: str
    anchored: int
    read: Callable[[str], bytes]
    signed: str = ""

    @property
    def published(self) -> Checkpoint:
        """The checkpoint of a log that has one."""
        assert self.checkpoint is not None
        return self.checkpoint


class Anchor(Protocol):
    """One place. Raises `PlaceAway` when it cannot be reached, `NotAnchored`, `Contradicted` and `Disputed`."""

    def look(self, known: Known) -> Outside | None:
        """The largest checkpoint of the log that it has, as far as it can say."""

    def take(self, known: Known) -> tuple[bytes, list[str]]:
        """Anchor the published checkpoint. What it gave, after it was verified, and the cosignature lines in it."""
