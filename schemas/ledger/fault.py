"""A fault: something in the ledger, or in a bundle, that is not as it was written."""

from dataclasses import dataclass
from typing import Literal

FaultKind = Literal[
    "envelope",  # not the JSON that LEDGER §1 describes
    "hash",  # the stored hash is not the envelope's, which the next entry names
    "gap",  # entries are missing before this one
    "repeated",  # two entries with the same number
    "content_repeated",  # two contents of one entry
    "fingerprint_repeated",  # two entries with the fingerprint of one event
    "chain_repeated",  # two chains' rows of one subject
    "link",  # `prev` is not the hash of the entry before
    "column",  # a column of the entry is not what was hashed
    "content_missing",  # and no erasure authorises that
    "content_erased",  # it is there, although an erasure lists it
    "erasure",  # the entry does not say what it erases, or lists what it may not
    "content_altered",  # the envelope commits to other content
    "blob_missing",  # the body is not in the blob store
    "blob_altered",  # the blob store holds another body under the reference
    "attributes",  # not the JSON that LEDGER §1 describes
    "content_column",  # a column of the content differs from the attributes
    "content_without_entry",
    "subject",  # the entry's subject or tenant is not its chain's
    "fingerprint",  # not the one of its tenant, source, origin and id
    "head",  # the chain's row does not name its last entry
    "chain_row",  # the chain's row contradicts its own key or its entries
    "chain_row_missing",
    "entries_missing",  # a chain's row without any of its entries
    "tenant_key",  # a tenant's key is missing or damaged: its fingerprints and chain keys cannot be checked
    "protection",  # something by which the database guards the ledger is missing or disabled
    "shortened",  # the chain ends before where it was once verified
    "rewritten",  # an entry is not the one that was once verified
    "log_position",  # positions of the tenant's log are missing
    "log_order",  # entries of a chain are in the log out of order, more than once, or without the one before
    "log_entry",  # the log has an entry that the ledger has not, or lacks one
    "log_root",  # the log's entries are not those that a checkpoint was signed for
    "line",  # of a bundle: not a valid line
    "checkpoint",  # of a bundle: missing, or not shown to be what it must be
    "origin",  # the entry does not say which log its own goes on from
    "inclusion",  # of a bundle: a proof does not show that an entry is in the log
    "heads",  # of a bundle: what it says of the ends of chains does not hold
    "chain_cut",  # of a bundle: a chain ends before where its log says that it ended
    "chain_left_out",  # of a bundle: a chain of its log is not in it
    "log_rewritten",  # of a bundle: its log does not continue one that was signed
    "log_rolled_back",  # of a bundle: its log is smaller than one that was signed
]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, with all that is known of its place."""

    tenant: str | None
    subject: str | None
    chain: str | None  # 32 hex digits
    seq: int | None
    kind: FaultKind
    detail: str


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of a verification. "Nothing to check" is a verdict of its own, not "intact"."""

    entries: int
    chains: int
    faults: int

    @property
    def verdict(self) -> Literal["intact", "broken", "nothing"]:
        """The result in one word."""
        if self.faults:
            return "broken"
        return "intact" if self.entries else "nothing"
