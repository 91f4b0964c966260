"""The Merkle tree of RFC 6962 §2.1: its hashes, its right edge, and proofs of inclusion and of consistency. Pure.

A `Node` gives the hash of a full subtree: `node(level, index)` covers the 2**level leaves from index * 2**level on. Proofs are
made of such hashes alone, so that a few tiles are enough for a log of any size.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from pipeline.errors import Unproven, Unreadable

HASH_BYTES: Final = 32
LARGEST: Final = 2**63 - 1  # the largest tree: tlog-cosignature and Postgres' bigint agree on it
EMPTY_ROOT: Final = sha256(b"").digest()

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"

Node = Callable[[int, int], bytes]


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf; for an envelope, the hash of its entry."""
    return sha256(_LEAF + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node above two others."""
    return sha256(_NODE + left + right).digest()


def parents(packed: bytes) -> bytes:
    """The hashes of the nodes above hashes that stand one after another; a last one without a neighbour has none."""
    pairs = range(0, len(packed) - 2 * HASH_BYTES + 1, 2 * HASH_BYTES)
    return b"".join([sha256(_NODE + packed[at : at + 2 * HASH_BYTES]).digest() for at in pairs])


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree of `size` leaves: the roots of its full subtrees, the largest first ("compact range").

    It is all that is needed to append leaves. Raises `Unreadable` when the number or the length of the hashes is wrong.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= LARGEST or len(self.hashes) != self.size.bit_count():
            raise Unreadable(f"a tree of {self.size} leaves does not have {len(self.hashes)} hashes on its right edge")
        _of_right_length(self.hashes)

    def root(self) -> bytes:
        """The root of the tree."""
        if not self.hashes:
            return EMPTY_ROOT
        *larger, root = self.hashes
        for left in reversed(larger):
            root = node_hash(left, root)
        return root

    @property
    def packed(self) -> bytes:
        """The hashes as one string of bytes, as the database keeps them."""
        return b"".join(self.hashes)


def read_frontier(size: int, packed: bytes) -> Frontier:
    """The frontier of `size` leaves from its `packed` form. Raises `Unreadable`."""
    return Frontier(size, split_hashes(packed))


def split_hashes(packed: bytes) -> tuple[bytes, ...]:
    """Hashes that stand one after another. Raises `Unreadable` for a rest."""
    if len(packed) % HASH_BYTES:
        raise Unreadable(f"{len(packed)} bytes are not a whole number of hashes")
    return tuple(packed[at : at + HASH_BYTES] for at in range(0, len(packed), HASH_BYTES))


def extend(frontier: Frontier, leaf_hashes: Iterable[bytes]) -> Frontier:
    """The frontier after `leaf_hashes` were appended.

    Hashes level by level: on each, the edge's hash comes first where there is one, and one without a neighbour stays as the
    new edge.
    """
    pending = list(leaf_hashes)
    size = frontier.size + len(pending)
    old, edge = list(frontier.hashes), []
    at_level = frontier.size
    while pending or old:
        if at_level & 1:
            pending.insert(0, old.pop())
        if len(pending) & 1:
            edge.append(pending.pop())
        pending = [sha256(_NODE + left + right).digest() for left, right in zip(pending[::2], pending[1::2], strict=True)]
        at_level >>= 1
    return Frontier(size, tuple(reversed(edge)))


def root_of(leaf_hashes: Iterable[bytes]) -> bytes:
    """The root over these leaf hashes."""
    return extend(Frontier(), leaf_hashes).root()


def tree_root(size: int, node: Node) -> bytes:
    """The root of the tree of the first `size` leaves."""
    return _over(0, size, node) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, node: Node) -> tuple[bytes, ...]:
    """The proof of RFC 6962 §2.1.1 that leaf `index` is in the tree of `size` leaves. Raises `Unproven` if it is not."""
    if not 0 <= index < size:
        raise Unproven(f"leaf {index} is not in a tree of {size} leaves")
    proof = []
    first, end = 0, size
    while end - first > 1:
        middle = first + _split(end - first)
        if index < middle:
            proof.append(_over(middle, end, node))
            end = middle
        else:
            proof.append(_over(first, middle, node))
            first = middle
    return tuple(reversed(proof))


def consistency_proof(old: int, new: int, node: Node) -> tuple[bytes, ...]:
    """The proof of RFC 6962 §2.1.2 that the tree of `new` leaves continues that of `old`; empty for an `old` of 0.

    Raises `Unproven` if `old` is larger.
    """
    if not 0 <= old <= new:
        raise Unproven(f"a tree of {new} leaves does not continue one of {old}")
    if old in {0, new}:
        return ()
    proof = []
    first, end = 0, new
    while old != end:
        middle = first + _split(end - first)
        if old <= middle:
            proof.append(_over(middle, end, node))
            end = middle
        else:
            proof.append(_over(first, middle, node))
            first = middle
    if first:
        proof.append(_over(first, end, node))
    return tuple(reversed(proof))


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Raises `Unproven` unless `proof` shows that leaf hash `leaf` is at `index` in the tree of `size` leaves with this root.

    The algorithm is that of RFC 9162 §2.1.3.2.
    """
    if not 0 <= index < size <= LARGEST:
        raise Unproven(f"leaf {index} is not in a tree of {size} leaves")
    _of_right_length((leaf, *proof))
    at, last, computed = index, size - 1, leaf
    for sibling in proof:
        if not last:
            raise Unproven("the inclusion proof is too long")
        if at & 1 or at == last:
            computed = node_hash(sibling, computed)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        at, last = at >> 1, last >> 1
    if last:
        raise Unproven("the inclusion proof is too short")
    if computed != root:
        raise Unproven("the inclusion proof does not lead to the root")


def prefix_root(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root of the tree of the first `index` + 1 leaves, from a proof of inclusion of its last leaf that holds.

    What is left of the path from a leaf to the root is all that the smaller tree consists of.
    """
    at, last, root = index, size - 1, leaf
    for sibling in proof:
        if at & 1 or at == last:
            root = node_hash(sibling, root)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        at, last = at >> 1, last >> 1
    return root


def check_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Raises `Unproven` unless `proof` shows that the tree of `new` leaves continues that of `old`, with these roots.

    Every tree continues the empty one, so that nothing can be shown of an `old` of 0, and it is refused. The algorithm is that
    of RFC 9162 §2.1.4.2.
    """
    if not 0 < old <= new <= LARGEST:
        raise Unproven(f"it cannot be shown that a tree of {new} leaves continues one of {old}")
    if old == new:
        if proof or old_root != new_root:
            raise Unproven("the consistency proof is too long" if proof else f"there are two roots of the tree of {old} leaves")
        return
    if not proof:
        raise Unproven("the consistency proof is empty")
    _of_right_length((old_root, new_root, *proof))
    before, after = _followed(old - 1, new - 1, old_root, proof)
    if before != old_root or after != new_root:
        raise Unproven(f"the consistency proof does not lead to the {'old' if before != old_root else 'new'} root")


def _followed(at: int, last: int, old_root: bytes, proof: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The old and the new root to which a consistency proof leads, given the old and the new tree's last leaf."""
    while at & 1:
        at, last = at >> 1, last >> 1
    rest = iter(proof if at else (old_root, *proof))
    before = after = next(rest)
    for sibling in rest:
        if not last:
            raise Unproven("the consistency proof is too long")
        if at & 1 or at == last:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            after = node_hash(after, sibling)
        at, last = at >> 1, last >> 1
    if last:
        raise Unproven("the consistency proof is too short")
    return before, after


def _over(first: int, end: int, node: Node) -> bytes:
    """The root over the leaves from `first` to `end`, the right part of a tree, which starts where a full subtree does."""
    edge = []
    while first < end:
        level = (end - first).bit_length() - 1
        edge.append(node(level, first >> level))
        first += 1 << level
    root = edge.pop()
    while edge:
        root = node_hash(edge.pop(), root)
    return root


def _split(size: int) -> int:
    """The largest power of two below `size`: where RFC 6962 divides a tree."""
    return 1 << ((size - 1).bit_length() - 1)


def _of_right_length(hashes: Iterable[bytes]) -> None:
    if any(len(each) != HASH_BYTES for each in hashes):
        raise Unproven(f"a hash is not {HASH_BYTES} bytes long")
