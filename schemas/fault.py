"""A fault: something in the ledger that is not as it was written."""

from dataclasses import dataclass
from typing import Literal

FaultKind = Literal[
    "envelope",  # not the JSON that LEDGER §1 describes
    "hash",  # the stored hash is not the envelope's
    "gap",  # entries are missing before this one
    "repeated",  # two entries with one number
    "link",  # it does not follow the entry before
    "column",  # a column of the entry says something else than its envelope
    "content_missing",
    "content_altered",  # the envelope commits to something else
    "blob_missing",  # the body is not in the blob store
    "blob_altered",  # what is there in its place is another
    "attributes",  # not the JSON that LEDGER §1 describes
    "content_column",  # a column of the content says something else than the attributes
    "content_without_entry",
    "subject",  # the entry is about something else than its chain
    "fingerprint",  # not that of its tenant, source, origin and id
    "head",  # the chain's row does not name its last entry
    "chain_row",  # the chain's row says something that its own key, or its entries, contradict
    "chain_row_missing",
    "entries_missing",  # a chain's row, and none of its entries
    "line",  # of a bundle: not a line of a bundle
    "checkpoint",  # of a bundle: not there, or not to be checked
]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, with all that is known of where it is."""

    tenant: str | None
    subject: str | None
    chain: str | None  # 32 hex digits
    seq: int | None
    kind: FaultKind
    detail: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification came to. Nothing to check is not intact."""

    entries: int
    chains: int
    faults: int

    @property
    def verdict(self) -> Literal["intact", "broken", "nothing"]:
        """In one word."""
        if self.faults:
            return "broken"
        return "intact" if self.entries else "nothing"
