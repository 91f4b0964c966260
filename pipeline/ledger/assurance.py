"""What can be claimed of a tenant's ledger today, in one word, by what was checked and not by what is configured. Pure."""

from dataclasses import dataclass

from schemas.ledger.assurance import WORDS, Claim, Word


@dataclass(frozen=True, slots=True)
class Checked:
    """What a verification found of one tenant. Each text says what is missing; None: it was checked, and holds."""

    chained: str | None
    sealed: str | None
    published: str | None
    anchored: str | None
    witnessed: str | None


def claim(checked: Checked) -> Claim:
    """The last word up to which everything holds: a published log that is not sealed well proves nothing."""
    word: Word = "none"
    for stronger in WORDS[1:]:
        missing = getattr(checked, stronger)
        if missing is not None:
            return Claim(word, f"for {stronger}: {missing}")
        word = stronger
    return Claim(word, "")
