"""Proofs from a tenant's published log: that an entry is in it, that it is all of a subject, that a log continues an older one.

Every hash comes from the published files, so a database that was altered cannot make a proof that holds; the database only says
at which position an entry is. Each proof is checked against the published checkpoint before it is given.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import Connection

from ops.admin.read_session import chain_of, known_tenant, tenant_keys
from ops.errors import NotPublished, OpsError
from ops.runtime.places import Place
from ops.runtime.published_log import PublishedLog
from ops.settings import Settings
from pipeline.dedupe import chain_key
from pipeline.errors import Unreadable
from pipeline.ledger.bundles.bundle import Inclusion, heads_line
from pipeline.ledger.checkpoint import Checkpoint, unverified_checkpoint
from pipeline.ledger.checks import read_envelope
from pipeline.ledger.heads import SUBJECT as HEADS
from pipeline.ledger.heads import Heads, Member, MemberProof, member_proofs, read_heads
from pipeline.ledger.merkle import (
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    tree_root,
)
from pipeline.ledger.tiles import WIDTH, TileReader
from pipeline.ledger.tlog_proof import ConsistencyProof, InclusionProof
from pipeline.store.log import leaves
from pipeline.store.log.leaves import Leaf
from schemas.ledger.ledger_rows import StoredEntry

_TILES: Final = 4096  # kept while all chains' ends are read: 80 MiB, for logs of up to a million leaves


@dataclass(frozen=True, slots=True)
class Tree:
    """A tenant's log as it is published."""

    log_id: int
    note: str
    checkpoint: Checkpoint
    reader: TileReader

    def inclusion(self, leaf: Leaf) -> Inclusion:
        """That an entry is in the log. Raises `OpsError` when the published files do not show it."""
        size = self.checkpoint.size
        try:
            hashes = inclusion_proof(leaf.position, size, self.reader.node)
            check_inclusion(self.reader.node(0, leaf.position), leaf.position, size, hashes, self.checkpoint.root)
        except Unreadable as error:
            raise OpsError(f"the published log of {self.checkpoint.origin} does not hold: {error}") from error
        return Inclusion(leaf.chain, leaf.seq, leaf.position, size, hashes)

    def envelope(self, leaf: Leaf) -> bytes:
        """The entry as it is published. Raises `OpsError` if another one is at its position."""
        try:
            raw = self.reader.entries(leaf.position // WIDTH)[leaf.position % WIDTH]
            envelope = read_envelope(raw)
            hashed = self.reader.node(0, leaf.position)
        except Unreadable as error:
            raise OpsError(f"the published log of {self.checkpoint.origin} does not hold: {error}") from error
        if (envelope["chain"], envelope["seq"]) != (leaf.chain.hex(), leaf.seq) or leaf_hash(raw) != hashed:
            raise OpsError(
                f"the published log of {self.checkpoint.origin} has another entry at {leaf.position}: `waxseal verify`"
            )
        return raw


def published(conn: Connection, settings: Settings, tenant: str, kept: int = 64) -> Tree | None:
    """The tenant's log as its newest published checkpoint has it; None if there is none. Raises `OpsError`, `PlaceAway`."""
    newest = leaves.newest_log(conn, tenant)
    if newest is None or not settings.log_files:
        return None
    log_id, incarnation = newest
    files = PublishedLog(Place(settings.log_files), tenant, incarnation)
    raw = files.checkpoint()
    if raw is None:
        return None
    try:
        note = raw.decode()
        checkpoint = unverified_checkpoint(note)
    except (Unreadable, UnicodeDecodeError) as error:
        raise OpsError(f"the checkpoint published for {tenant} is damaged: {error}") from error
    return Tree(log_id, note, checkpoint, TileReader(files.read, checkpoint.size, kept))


def prove(
    conn: Connection, settings: Settings, tenant: str, subject: str, seq: int | None, *, scan: bool = True
) -> InclusionProof:
    """That an entry of the subject is in the tenant's log: entry `seq`, or the last one in it. `extra` is its envelope.

    `scan`: see `chain_of`. Raises `NotPublished` if the entry, or the log, is not published yet.
    """
    tree = _tree(conn, settings, tenant)
    leaf = _leaf(conn, tree, _chain(conn, settings, tenant, subject, scan=scan), seq)
    inclusion = tree.inclusion(leaf)
    return InclusionProof(inclusion.index, tuple(inclusion.proof), tree.note, tree.envelope(leaf))


def prove_complete(conn: Connection, settings: Settings, tenant: str, subject: str, *, scan: bool = True) -> InclusionProof:
    """Where the subject's chain ended, by the newest heads entry in the log. `extra` is the line of a bundle that shows it."""
    tree = _tree(conn, settings, tenant, _TILES)
    chain = _chain(conn, settings, tenant, subject, scan=scan)
    line, inclusion = _heads_of(conn, settings, tree, tenant, {chain})
    return InclusionProof(inclusion.index, tuple(inclusion.proof), tree.note, line.rstrip(b"\n"))


def prove_consistency(conn: Connection, settings: Settings, tenant: str, old: int, new: int) -> ConsistencyProof:
    """That the tenant's log of `new` leaves continues the one of `old`. Raises `NotPublished` if it has fewer."""
    tree = _tree(conn, settings, tenant)
    if new > tree.checkpoint.size:
        raise NotPublished(f"the published log of {tree.checkpoint.origin} has {tree.checkpoint.size} leaves, not {new}")
    if not 0 < old <= new:
        raise OpsError(f"OLD and NEW are sizes of the log, the smaller one first: 1 to {new}, not {old}")
    note = tree.note if new == tree.checkpoint.size else leaves.signed(conn, tree.log_id, new)
    if note is None:
        near = ", ".join(map(str, leaves.nearest_sizes(conn, tree.log_id, new)))
        raise OpsError(f"no checkpoint was signed at {new} leaves, but at {near}")
    try:
        root = unverified_checkpoint(note).root
        hashes = consistency_proof(old, new, tree.reader.node)
        check_consistency(old, new, tree_root(old, tree.reader.node), root, hashes)
    except Unreadable as error:
        raise OpsError(f"the published log of {tree.checkpoint.origin} does not hold: {error}") from error
    return ConsistencyProof(old, hashes, note)


def heads_of(conn: Connection, settings: Settings, tree: Tree, tenant: str, chains: set[UUID]) -> bytes | None:
    """The line of a bundle that shows where these chains ended; None if the log has no heads entry yet."""
    try:
        return _heads_of(conn, settings, tree, tenant, chains)[0]
    except NotPublished:
        return None


def _tree(conn: Connection, settings: Settings, tenant: str, kept: int = 64) -> Tree:
    tree = published(conn, settings, known_tenant(conn, tenant), kept)
    if tree is None:
        raise NotPublished(
            f"the log of {tenant} is not published yet: the sealer does that; `waxseal log status` says how far it is"
        )
    return tree


def _chain(conn: Connection, settings: Settings, tenant: str, subject: str, *, scan: bool = True) -> UUID:
    keys = tenant_keys(conn, settings) or {}
    chain = chain_of(conn, tenant, subject, chain_key(keys[tenant], subject) if tenant in keys else None, scan=scan)
    if chain is None:
        raise OpsError(f"nothing is recorded of {subject!r} for tenant {tenant}")
    return chain


def _leaf(conn: Connection, tree: Tree, chain: UUID, seq: int | None) -> Leaf:
    size = tree.checkpoint.size
    if seq is None:
        last = leaves.last_before(conn, tree.log_id, chain, size)
        if last is None:
            raise NotPublished(f"no entry of it is in the published log yet, which has {size} leaves")
        return last
    position = leaves.position(conn, tree.log_id, chain, seq)
    if position is None or position >= size:
        raise NotPublished(f"entry {seq} is not in the published log yet, which has {size} leaves")
    return Leaf(chain.bytes, seq, position)


def _heads_of(conn: Connection, settings: Settings, tree: Tree, tenant: str, chains: set[UUID]) -> tuple[bytes, Inclusion]:
    leaf, entry, said = _newest_heads(conn, settings, tree, tenant)
    try:
        proofs = member_proofs(said.count, _members(conn, tree, said), chains)
        _check(proofs.values(), said)
    except Unreadable as error:
        raise OpsError(f"the ledger has not what its heads entry {leaf.seq} says: {error}: `waxseal verify`") from error
    if not proofs:
        raise NotPublished(f"the newest heads entry, of {said.size} leaves, is older than this")
    inclusion = tree.inclusion(leaf)
    return heads_line(entry, inclusion, proofs.values()), inclusion


def _newest_heads(conn: Connection, settings: Settings, tree: Tree, tenant: str) -> tuple[Leaf, StoredEntry, Heads]:
    try:
        leaf = _leaf(conn, tree, _chain(conn, settings, tenant, HEADS), None)
    except OpsError:
        raise NotPublished(f"the published log of {tenant} has no heads entry yet: it gets one from time to time") from None
    entry = leaves.entry(conn, UUID(bytes=leaf.chain), leaf.seq)
    if entry is None or entry.body is None:
        raise OpsError(f"the content of heads entry {leaf.seq} of {tenant} is missing: `waxseal verify`")
    try:
        return leaf, entry, read_heads(entry.body)
    except Unreadable as error:
        raise OpsError(f"heads entry {leaf.seq} of {tenant} is damaged: {error}: `waxseal verify`") from error


def _members(conn: Connection, tree: Tree, said: Heads) -> Iterator[Member]:
    """Where every chain ended within the leaves that the heads entry speaks of; the hashes are the published ones."""
    for leaf in leaves.ends(conn, tree.log_id, said.size):
        yield Member(UUID(bytes=leaf.chain), leaf.seq, tree.reader.node(0, leaf.position))


def _check(proofs: Iterable[MemberProof], said: Heads) -> None:
    for each in proofs:
        check_inclusion(leaf_hash(each.member.data), each.index, said.count, each.proof, said.root)
