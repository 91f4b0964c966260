"""An entry: an event in the ledger. LEDGER.md defines its bytes."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from schemas.event import Event


@dataclass(slots=True)
class Head:
    """The end of a chain: the last entry's number and hash, or -1 and None before the first. Do not modify."""

    chain_id: UUID
    seq: int
    hash: bytes | None


@dataclass(slots=True)
class Entry:
    """One event in its chain, and what its envelope consists of. Do not modify."""

    event: Event
    chain_id: UUID
    seq: int
    prev_hash: bytes | None
    hash: bytes
    at: int  # recorded at, in microseconds UTC
    kind: str
    pc: bytes  # commits to attributes, body and salt
    attributes: bytes
    salt: bytes


@dataclass(frozen=True, slots=True)
class BrokenChain:
    """A chain whose head and entries disagree, or cannot be read: then its id is not known. `fault` says what is wrong."""

    tenant: str
    subject: str
    chain_id: UUID | None
    fault: str

    @property
    def detail(self) -> str:
        """The fault, and what an operator should do about it."""
        if self.chain_id is None:
            return f"{self.fault}: mend the database, then `waxseal dead replay --reason chain_broken`"
        return (
            f"{self.fault} (chain {self.chain_id.hex}): `waxseal verify --tenant {self.tenant}` names the fault; mend it, then "
            "`waxseal dead replay --reason chain_broken`"
        )


def ends(entries: Iterable[Entry]) -> dict[bytes, Head]:
    """The new heads, by chain key, after `entries`, which must be in chain order."""
    return {key: end_of(entry) for key, entry in {entry.event.chain_key: entry for entry in entries}.items()}


def end_of(entry: Entry) -> Head:
    """The head of a chain that ends with `entry`."""
    return Head(entry.chain_id, entry.seq, entry.hash)
