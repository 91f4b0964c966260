"""Deliveries that are not attempted, and why; with the types of what loading one finds and of what is decided about it."""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from pipeline.store.deliveries.deliveries import Held
from schemas.delivery import Delivery, Tried


class Missing(Enum):
    """Why there is nothing to send."""

    LEASE = "the lease is gone"
    CONTENT = "the content was erased"


@dataclass(frozen=True, slots=True)
class Untried:
    """A delivery that was not attempted, and its next state.

    `pending`: due again after `wait` seconds. `aside`: paused, discarded or due again, as the endpoint's row decides.
    """

    held: Held
    into: Literal["pending", "aside"]
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A delivery that must not be sent any more."""

    held: Held
    why: str
    transport: str


@dataclass(frozen=True, slots=True)
class TooOld:
    """A delivery that was not attempted, because it exceeds its endpoint's maximum age."""

    delivery: Delivery
    transport: str


Verdict = Tried | Untried | TooOld | GivenUp
Found = Delivery | Missing
