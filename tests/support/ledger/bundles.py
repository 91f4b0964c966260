"""A tenant's ledger with its log in memory, and bundles of it, made with the product's own writers."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from uuid import UUID

import orjson

from pipeline.chain import encode, extend, stored_envelope
from pipeline.ledger.bundles.bundle import Inclusion, checkpoint_line, entry_line, header_line, heads_line, inclusion_line
from pipeline.ledger.checkpoint import Checkpoint
from pipeline.ledger.heads import Gathered, Heads, Member, member_proofs
from pipeline.ledger.merkle import consistency_proof, inclusion_proof, tree_root
from pipeline.ledger.notes import Signer, sign
from pipeline.ledger.tiles import TileReader
from pipeline.ledger.tlog_proof import ConsistencyProof
from schemas.entry import Head
from schemas.event import Event
from schemas.ledger.ledger_rows import StoredEntry
from support.ledger.logs import published

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SIGNER = Signer("ledger.example/acme", bytes(range(32)))
HEADS = UUID(int=9999)
Place = tuple[UUID, int]


def event(subject: str, body: bytes, **changed: str) -> Event:
    names = {"id": "e", "source": "shop", "specversion": "1.0", "type": "t", "datacontenttype": "text/plain"}
    return Event("acme", {**names, "subject": subject, "time": "2026-01-01T00:00:00Z", **changed}, body, b"", b"")


class Ledger:
    """Chains by their number, and the log: the leaves in their order."""

    def __init__(self, signer: Signer = SIGNER) -> None:
        self.signer = signer
        self.chains: dict[UUID, list[StoredEntry]] = {}
        self.leaves: list[StoredEntry] = []
        self.said: tuple[StoredEntry, Heads] | None = None

    def record(self, chain: int | UUID, body: bytes = b"body", kind: str = "event", **changed: str) -> StoredEntry:
        """Appends an entry to a chain, and to the log."""
        chain_id = chain if isinstance(chain, UUID) else UUID(int=chain)
        before = self.chains.setdefault(chain_id, [])
        head = Head(chain_id, len(before) - 1, before[-1].hash if before else None)
        about = event(changed.pop("subject", f"order-{chain}"), body, **changed)
        entry = extend(head, about, 1_767_225_600_000_000 + len(self.leaves), bytes([len(self.leaves) % 256]) * 32, kind)
        row = StoredEntry(
            chain_id.bytes,
            entry.seq,
            entry.prev_hash,
            entry.hash,
            "acme",
            entry.at,
            kind,
            entry.pc,
            None,
            encode(about.attributes),
            body,
            None,
            entry.salt,
            None,
            None,
            None,
            None,
        )
        before.append(row)
        self.leaves.append(row)
        return row

    def erase(self, chain: int, *spans: Sequence[int], **changed: object) -> None:
        """Erases content of a chain, as LEDGER §4 says; `changed` alters what is recorded of it."""
        rows = self.chains[UUID(int=chain)]
        for first, last in spans:
            for row in rows[first : last + 1]:
                gone = row._replace(attributes=None, body=None, salt=None)
                rows[row.seq] = gone
        told = {"by": "dpo", "reason": "asked", "seqs": spans, "subject": False, **changed}
        names = {"source": "waxseal", "type": "waxseal.erasure", "subject": UUID(int=chain).hex}
        body = orjson.dumps(told, option=orjson.OPT_SORT_KEYS)
        self.record(chain, body, "erasure", **names, datacontenttype="application/json")

    def state_heads(self) -> None:
        """Appends a heads entry over all leaves so far."""
        gathered = Gathered()
        gathered.add(self.members(len(self.leaves)))
        said = gathered.heads(len(self.leaves))
        self.said = (
            self.record(HEADS, said.body, "heads", source="waxseal", type="waxseal.heads", subject="waxseal.heads"),
            said,
        )

    def members(self, size: int) -> list[Member]:
        last = {row.chain_id: row for row in self.leaves[:size]}
        return [Member(UUID(bytes=chain), row.seq, row.hash) for chain, row in sorted(last.items())]

    def files(self, *sizes: int) -> dict[str, bytes]:
        """The published log: its tiles and entries, and its newest checkpoint."""
        sizes = sizes or (len(self.leaves),)
        return {**self._tiles(*sizes), "checkpoint": self.note(max(sizes)).encode()}

    def reader(self, size: int) -> TileReader:
        return TileReader(self._tiles(size).__getitem__, size)

    def _tiles(self, *sizes: int) -> dict[str, bytes]:
        return published([stored_envelope(row) for row in self.leaves], sizes)

    def checkpoint(self, size: int | None = None) -> Checkpoint:
        size = len(self.leaves) if size is None else size
        return Checkpoint(self.signer.name, size, tree_root(size, self.reader(size).node))

    def note(self, size: int | None = None) -> str:
        return sign(self.checkpoint(size).text, [self.signer])

    def inclusion(self, row: StoredEntry, size: int) -> Inclusion:
        index = next(at for at, leaf in enumerate(self.leaves) if (leaf.chain_id, leaf.seq) == (row.chain_id, row.seq))
        return Inclusion(row.chain_id, row.seq, index, size, inclusion_proof(index, size, self.reader(size).node))

    def consistency(self, old: int, new: int) -> ConsistencyProof:
        return ConsistencyProof(old, consistency_proof(old, new, self.reader(new).node), self.note(new))

    def lines(self, size: int | None = None, *, only: Iterable[int] | None = None, more: Iterable[int] = ()) -> list[bytes]:
        """A bundle with inclusions of each chain's last entry in the first `size` leaves, and of the leaves at `more`."""
        size = len(self.leaves) if size is None else size
        chains = {chain: rows for chain, rows in self.chains.items() if only is None or chain.int in only}
        made = [header_line("acme", NOW), *(entry_line(row) for rows in chains.values() for row in rows)]
        made.append(checkpoint_line(self.note(size)))
        sealed = {row.chain_id: row for row in self.leaves[:size] if UUID(bytes=row.chain_id) in chains}
        rows = [*sealed.values(), *(self.leaves[at] for at in more)]
        made += [inclusion_line(self.inclusion(row, size)) for row in rows]
        if self.said is not None:
            entry, said = self.said
            proofs = member_proofs(said.count, self.members(said.size), set(chains))
            made.append(heads_line(entry, self.inclusion(entry, size), proofs.values()))
        return made
