"""A message that the worker holds, and the decision about it before the transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.bury import dead_letter_of
from pipeline.errors import Rejected
from schemas.dead_letter import DeadLetter
from schemas.entry import BrokenChain
from schemas.event import Event
from schemas.message import Message


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message is buried: the stage, one of the closed set of reasons, and what an operator can do."""

    stage: Literal["admit", "append"]
    reason: str
    detail: str
    error: str | None = None

    def dead_letter(self, message: Message) -> DeadLetter:
        """The dead letter that `message` becomes."""
        return dead_letter_of(message, self.stage, self.reason, self.detail, self.error)


@dataclass(slots=True)
class Judged:
    """A message, with its events if it was admitted, or the refusal, by the rules of `epoch`.

    With neither it has to be examined in a separate process: it was redelivered, or could not be judged in this one.
    """

    message: Message
    size: int  # bytes of the body, wherever it is
    epoch: int = -1  # of tenants and sources; events admitted under an earlier epoch are not recorded
    events: Sequence[Event] | None = None
    refusal: Refusal | None = None

    @property
    def is_open(self) -> bool:
        """Whether nothing has been decided yet."""
        return self.events is None and self.refusal is None


def rejected(error: Rejected) -> Refusal:
    """The refusal of a message that `admit` rejected."""
    return Refusal("admit", error.reason, error.detail)


def broken(chain: BrokenChain) -> Refusal:
    """The refusal of a message that would extend a broken chain."""
    return Refusal("append", "chain_broken", chain.detail)
