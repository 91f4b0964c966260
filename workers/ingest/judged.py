"""A message in hand, and what was decided about it before the transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.bury import dead_letter_of
from pipeline.errors import Rejected
from schemas.dead_letter import DeadLetter
from schemas.event import Event
from schemas.message import Message


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message is buried: at which stage, for which of the closed set of reasons, and what a person can do."""

    stage: Literal["admit", "append"]
    reason: str
    detail: str
    error: str | None = None

    def letter(self, message: Message) -> DeadLetter:
        """The dead letter that `message` becomes."""
        return dead_letter_of(message, self.stage, self.reason, self.detail, self.error)


@dataclass(slots=True)
class Judged:
    """A message, and its events if it was admitted, or why it is refused, by the rules of `epoch`.

    With neither it is to be examined apart: it came again after something had gone wrong, or could not be judged here.
    """

    message: Message
    size: int  # bytes of the body, wherever it is
    epoch: int = -1  # of tenants and sources: events that an earlier one admitted are not recorded
    events: Sequence[Event] | None = None
    refusal: Refusal | None = None

    @property
    def is_open(self) -> bool:
        """Whether nothing was decided yet."""
        return self.events is None and self.refusal is None


def rejected(error: Rejected) -> Refusal:
    """Why a message that cannot be admitted is buried."""
    return Refusal("admit", error.reason, error.detail)
