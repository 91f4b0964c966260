"""What can be found of a delivery that is to be sent, and what can come of having it in hand."""

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
    """A delivery that was not tried, and what becomes of it.

    Due again after `wait` seconds; or `aside`, what the endpoint's row says: kept, given up, or due again after all.
    """

    held: Held
    into: Literal["pending", "aside"]
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A delivery that nobody is to get any more."""

    held: Held
    why: str
    transport: str


@dataclass(frozen=True, slots=True)
class TooOld:
    """A delivery that was not tried, because its endpoint does not want what is that old."""

    delivery: Delivery
    transport: str


Verdict = Tried | Untried | TooOld | GivenUp
Found = Delivery | Missing
