"""What a verification knows of one chain while it reads the chain's entries in order. Memory is bounded for each chain."""

from typing import Final

from pipeline.ledger.checks import Thread
from pipeline.ledger.erasures import Span
from schemas.ledger.ledger_rows import StoredChain

_GAPS: Final = 100  # that are kept, to recognise an entry whose number was altered


class Chain:
    """A chain, how far it has been read, and whose it is according to the bytes that were hashed."""

    __slots__ = (
        *("chain_id", "erasures", "faults", "gaps", "hash", "hex", "identity", "key", "keyed"),
        *("kept", "missing", "renamed", "row", "seq", "thread"),
    )

    def __init__(self, chain_id: bytes | None, row: StoredChain | None, key: bytes | None, *, keyed: bool) -> None:
        """`key`: the tenant's; `keyed`: whether the row's own key is that of its tenant and subject, if that is known."""
        self.chain_id, self.row, self.key, self.keyed = chain_id, row, key, keyed
        self.hex = "" if chain_id is None else chain_id.hex()
        self.seq = -1
        self.faults = 0
        self.hash: bytes | None = None
        self.identity: tuple[str, str | None] | None = None  # tenant and subject that the first intact event names
        self.thread: Thread | None = None  # for entries that are checked one by one
        self.missing: list[Span] = []  # entries without their content
        self.erasures: list[tuple[int, list[Span]]] = []  # the erasing entry's number, and what it lists
        self.kept: list[int] = []  # entries that no erasure may list, because they are no events
        self.renamed = False  # an erasure took the subject's name as well
        self.gaps: list[int] = []  # missing numbers

    @property
    def tenant(self) -> str | None:
        """Whose it is: as the hashed bytes say, else as the row says."""
        return self.identity[0] if self.identity else self.row.tenant if self.row else None

    @property
    def subject(self) -> str | None:
        """What it is about: as the hashed bytes say, else as the row says."""
        return self.identity[1] if self.identity else self.row.subject if self.row else None

    def lacks(self, seq: int) -> None:
        """Note that the content of an entry is missing; entries come in ascending order."""
        if self.missing and self.missing[-1][1] == seq - 1:
            self.missing[-1] = (self.missing[-1][0], seq)
        else:
            self.missing.append((seq, seq))

    def gap(self, seq: int) -> None:
        """Note that the entry with this number is not where it belongs."""
        if len(self.gaps) < _GAPS:
            self.gaps.append(seq)


def without(spans: list[Span], listed: list[Span]) -> list[Span]:
    """The parts of `spans` that no span of `listed` covers."""
    left = spans
    for first, last in listed:
        rest: list[Span] = []
        for begin, end in left:
            if last < begin or end < first:
                rest.append((begin, end))
                continue
            if begin < first:
                rest.append((begin, first - 1))
            if last < end:
                rest.append((last + 1, end))
        left = rest
    return left
