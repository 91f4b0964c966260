"""Checks of a chain when all of its entries have been read. Pure."""

from collections.abc import Iterable, Iterator

from pipeline.ledger.checks import Finding
from pipeline.ledger.verifying.chain_state import Chain, without
from schemas.ledger.ledger_rows import StoredChain


def head(chain: Chain, row: StoredChain) -> Iterator[Finding]:
    """(9) the chain's row names the last entry and its hash."""
    if chain.seq < 0:
        if row.seq != -1 or row.hash is not None:
            yield "entries_missing", f"the chain's row exists, but none of its entries 0 to {row.seq}"
    elif row.seq != chain.seq:
        yield "head", f"the chain's row ends at {row.seq}, its entries at {chain.seq}"
    elif row.hash != chain.hash:
        yield "head", "the chain's hash is not that of its last entry"


def listed_or_missing(chain: Chain, present: Iterable[int]) -> Iterator[tuple[int, Finding]]:
    """(6) content that is missing was listed by an erasure, and none that was listed is there (`present`)."""
    left = chain.missing
    for _, spans in chain.erasures:
        left = without(left, spans)
    for first, last in left:
        for seq in range(first, last + 1):
            yield seq, ("content_missing", "it is missing, and no erasure authorises that")
    for seq in present:
        by = next((number for number, spans in chain.erasures if any(a <= seq <= b for a, b in spans)), None)
        yield seq, ("content_erased", f"it is there, although entry {by} erased it")
