"""What can be claimed of a tenant's ledger, in one word, from the weakest to the strongest."""

from dataclasses import dataclass
from typing import Final, Literal

Word = Literal["none", "chained", "sealed", "published", "anchored", "witnessed"]
WORDS: Final[tuple[Word, ...]] = ("none", "chained", "sealed", "published", "anchored", "witnessed")


@dataclass(frozen=True, slots=True)
class Claim:
    """The word, and what is missing for the next one; empty when there is none."""

    word: Word
    missing: str
