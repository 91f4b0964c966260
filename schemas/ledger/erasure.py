"""What can be erased from a chain, and what was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class ErasableChain:
    """A chain as erasing needs it. `subject` is None once its name was erased."""

    key: bytes
    tenant: str
    chain_id: UUID
    subject: str | None
    seq: int  # of its last entry


@dataclass(frozen=True, slots=True)
class Erased:
    """What went with the content of `entries` entries. `discarded` are unfinished deliveries, by transport."""

    entries: int = 0
    bytes: int = 0
    blobs: int = 0  # that they referred to; others may refer to them as well
    documents: int = 0
    mails: int = 0
    letters: int = 0  # dead letters deleted or emptied
    discarded: Mapping[str, int] = field(default_factory=dict)
    turns: Sequence[int] = ()  # ordered endpoints whose turn in the chain is free

    def __add__(self, other: "Erased") -> "Erased":
        """What went in both."""
        names = ("entries", "bytes", "blobs", "documents", "mails", "letters")
        both = {*self.discarded, *other.discarded}
        discarded = {name: self.discarded.get(name, 0) + other.discarded.get(name, 0) for name in both}
        return Erased(**{name: getattr(self, name) + getattr(other, name) for name in names}, discarded=discarded)


@dataclass(frozen=True, slots=True)
class Counted:
    """What erasing would take from a chain up to the entry `last`, or from some entries of it."""

    events: int  # with those whose content is gone
    own: int  # that Waxseal appended itself
    gone: int
    bytes: int
    blobs: int
    documents: int
    deliveries: Mapping[str, int]  # by state
    last: int

    @property
    def erasable(self) -> int:
        """The number of entries whose content would be erased."""
        return self.events - self.gone


@dataclass(frozen=True, slots=True)
class ErasedBlob:
    """A blob of erased content, not yet deleted."""

    tenant: str
    reference: str
    erased_at: datetime
