"""What an export adds to the entries: what is missing of them, and proofs that they are in the tenant's published log."""

from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from typing import IO, Final
from uuid import UUID

from sqlalchemy import Connection

from ops.admin.proofs import Tree, heads_of, published
from ops.settings import Settings
from pipeline.errors import Unreadable
from pipeline.ledger.bundles.bundle import checkpoint_line, inclusion_line
from pipeline.ledger.bundles.contents import Contents
from pipeline.ledger.erasures import read_erasure
from pipeline.store.log import leaves
from pipeline.store.log.leaves import Leaf
from schemas.ledger.ledger_rows import StoredEntry

MOST_OLDER: Final = 500  # older checkpoints of which a bundle shows by itself that the log continues them
MOST_MEMBERS: Final = 50_000  # chains in the line of heads: about a kibibyte each
ONE_BY_ONE: Final = 1000  # chains of which each is looked up
_READ: Final = 100_000  # sizes of checkpoints


class Missing:
    """Watches one chain while it is exported, and reports content that is missing from it."""

    def __init__(self, lost: Callable[[str], None]) -> None:
        self.last = -1
        self._subject: str | None = None
        self._contents = Contents()
        self._lost = lost

    def see(self, entry: StoredEntry) -> StoredEntry:
        """The next entry, which is given back."""
        self.last, self._subject = entry.seq, self._subject or entry.subject
        lost_by_store = entry.blob is not None and entry.body is None  # reported already
        self._contents.add(entry.seq, present=lost_by_store or entry.salt is not None)
        if entry.kind == "erasure" and entry.body is not None:
            with suppress(Unreadable):
                self._contents.erase(read_erasure(entry.body, entry.seq).spans)
        return entry

    def end(self) -> None:
        """There are no more."""
        for seq in self._contents.missing():
            self._lost(f"{self._subject!r} entry {seq}: its content is gone, and no erasure lists it")


def write_log(out: IO[bytes], conn: Connection, settings: Settings, tenant: str, chains: Set[bytes]) -> None:
    """Writes checkpoint, inclusions and heads of the `chains` in a bundle; nothing if the log is not published yet.

    Of each chain the last entry in the log. The leaf at the end of an older checkpoint as well, if the bundle has it: the proof
    that it is in the log shows that the log continues that checkpoint.
    """
    tree = published(conn, settings, tenant)
    if tree is None:
        return
    out.write(checkpoint_line(tree.note))
    for leaf in _shown(conn, tree, chains):
        out.write(inclusion_line(tree.inclusion(leaf)))
    if len(chains) <= MOST_MEMBERS:
        line = heads_of(conn, settings, tree, tenant, {UUID(bytes=each) for each in chains})
        if line is not None:
            out.write(line)


def _shown(conn: Connection, tree: Tree, chains: Set[bytes]) -> Iterator[Leaf]:
    size = tree.checkpoint.size
    older = _spread(leaves.signed_sizes(conn, tree.log_id, size, _READ))
    edges = {leaf for leaf in leaves.leaves_at(conn, tree.log_id, [each - 1 for each in older if each]) if leaf.chain in chains}
    yield from sorted(edges, key=lambda leaf: leaf.position)
    yield from (leaf for leaf in _ends(conn, tree, chains) if leaf not in edges)


def _ends(conn: Connection, tree: Tree, chains: Set[bytes]) -> Iterator[Leaf]:
    """The last entry of each chain in the log: one look-up each, or all of the tenant's in one pass if they are many."""
    if len(chains) > ONE_BY_ONE:
        yield from (leaf for leaf in leaves.ends(conn, tree.log_id, tree.checkpoint.size) if leaf.chain in chains)
        return
    for chain in sorted(chains):
        last = leaves.last_before(conn, tree.log_id, UUID(bytes=chain), tree.checkpoint.size)
        if last is not None:
            yield last


def _spread(sizes: list[int]) -> list[int]:
    """The newest half as they are, and the others evenly."""
    newest, others = sizes[: MOST_OLDER // 2], sizes[MOST_OLDER // 2 :]
    step = -(-len(others) // (MOST_OLDER // 2)) or 1
    return [*newest, *others[::step]]
