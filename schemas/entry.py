"""An entry: an event in the ledger. The bytes are LEDGER.md's."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from schemas.event import Event


@dataclass(slots=True)
class Head:
    """The end of a chain: the last entry's number and hash, or -1 and None before the first. Not to be changed."""

    chain_id: UUID
    seq: int
    hash: bytes | None


@dataclass(slots=True)
class Entry:
    """One event, chained: the exact bytes that are hashed and stored. Not to be changed."""

    event: Event
    chain_id: UUID
    seq: int
    prev_hash: bytes | None
    hash: bytes
    envelope: bytes
    attributes: bytes
    salt: bytes


@dataclass(frozen=True, slots=True)
class BrokenChain:
    """A chain whose head and entries disagree; `fault` says how."""

    tenant: str
    subject: str
    chain_id: UUID
    fault: str

    @property
    def detail(self) -> str:
        """What is wrong, and what a person should do."""
        return (
            f"{self.fault} (chain {self.chain_id.hex}): `waxseal verify --tenant {self.tenant}` names the fault; mend it, then "
            "`waxseal dead replay --reason chain_broken`"
        )


def ends(entries: Iterable[Entry]) -> dict[bytes, Head]:
    """Where `entries`, which are in chain order, leave their chains, by chain key."""
    return {key: end_of(entry) for key, entry in {entry.event.chain_key: entry for entry in entries}.items()}


def end_of(entry: Entry) -> Head:
    """The head of a chain that ends with `entry`."""
    return Head(entry.chain_id, entry.seq, entry.hash)
