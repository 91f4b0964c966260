"""Heads (LEDGER §3): where every chain of a tenant ended within the first leaves of its log, as one root. Pure.

A member is `chain id (16 bytes) ‖ seq (uint64, big-endian) ‖ hash (32 bytes)`; members are sorted by chain id. With an entry of
kind "heads" in the log, "this is all of this subject as of that checkpoint" is provable.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

import orjson

from pipeline.errors import Unreadable
from pipeline.ledger.merkle import EMPTY_ROOT, HASH_BYTES, Frontier, extend, inclusion_proof, leaf_hash, parents

KIND = "heads"
SUBJECT = "waxseal.heads"
TYPE = "waxseal.heads"

_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Member:
    """Where one chain ended."""

    chain_id: UUID
    seq: int
    hash: bytes

    @property
    def data(self) -> bytes:
        """The bytes of its leaf."""
        return self.chain_id.bytes + self.seq.to_bytes(8, "big") + self.hash


@dataclass(frozen=True, slots=True)
class Heads:
    """What a heads entry says: the root over `count` members, as of the log's first `size` leaves."""

    count: int
    root: bytes
    size: int

    @property
    def body(self) -> bytes:
        """The entry's body: RFC 8785 of three plain members."""
        return orjson.dumps({"count": self.count, "root": self.root.hex(), "size": self.size}, option=orjson.OPT_SORT_KEYS)


@dataclass(frozen=True, slots=True)
class MemberProof:
    """That a member is the `index`th of `count`, as in a bundle (LEDGER §5)."""

    member: Member
    index: int
    count: int
    proof: tuple[bytes, ...]


@dataclass(slots=True)
class Gathered:
    """Members, added in the order of their chain ids, in as little memory for a million as for one."""

    _frontier: Frontier = field(default_factory=Frontier)
    _waiting: list[bytes] = field(default_factory=list)
    _last: bytes = b""

    def add(self, members: Iterable[Member]) -> None:
        """Add the next ones. Raises `Unreadable` if one is not after the one before."""
        for member in members:
            if member.chain_id.bytes <= self._last:
                raise Unreadable(f"chain {member.chain_id.hex} does not come after {self._last.hex()}")
            self._last = member.chain_id.bytes
            self._waiting.append(leaf_hash(member.data))
            if len(self._waiting) == _AT_ONCE:
                self._flush()

    def heads(self, size: int) -> Heads:
        """What the entry says of the log's first `size` leaves, whose chains were all added."""
        self._flush()
        root = self._frontier.root() if self._frontier.size else EMPTY_ROOT
        return Heads(self._frontier.size, root, size)

    def _flush(self) -> None:
        if self._waiting:
            self._frontier, self._waiting = extend(self._frontier, self._waiting), []


def member_proofs(count: int, members: Iterable[Member], wanted: set[UUID]) -> dict[UUID, MemberProof]:
    """The proofs of the `wanted` chains among `count` members; a chain that has none is left out.

    `members` are all of them, sorted. Memory: three hashes for each. Raises `Unreadable` if there are not `count`.
    """
    found: dict[UUID, tuple[int, Member]] = {}
    leaves = bytearray()
    for at, member in enumerate(members):
        leaves += leaf_hash(member.data)
        if member.chain_id in wanted:
            found[member.chain_id] = (at, member)
    needed: dict[tuple[int, int], bytes] = {}

    def note(level: int, index: int) -> bytes:
        needed[level, index] = b""
        return b""

    for at, _ in found.values():
        _of_subtrees(at, count, note)
    seen = len(leaves) // HASH_BYTES
    if seen != count:
        raise Unreadable(f"there are {seen} chains, and the heads entry says {count}")
    _fill(needed, bytes(leaves))
    return {
        chain: MemberProof(member, at, count, inclusion_proof(at, count, lambda level, index: needed[level, index]))
        for chain, (at, member) in found.items()
    }


def _of_subtrees(at: int, count: int, node: Callable[[int, int], bytes]) -> None:
    """Ask `node` for the subtrees of which the proof is made."""
    inclusion_proof(at, count, node)


def _fill(needed: dict[tuple[int, int], bytes], level: bytes) -> None:
    """Compute the subtrees that are needed, from the hashes of all leaves, level by level."""
    for height in range(max((height for height, _ in needed), default=-1) + 1):
        for at in [at for of, at in needed if of == height]:
            needed[height, at] = level[at * HASH_BYTES : (at + 1) * HASH_BYTES]
        level = parents(level)


def read_heads(body: bytes) -> Heads:
    """What a heads entry says. Raises `Unreadable`."""
    try:
        said: Mapping[str, object] = orjson.loads(body)
        count, root, size = said["count"], bytes.fromhex(str(said["root"])), said["size"]
    except (ValueError, KeyError, TypeError):
        raise Unreadable("this is not the body of a heads entry") from None
    if type(count) is not int or type(size) is not int or len(root) != 32:
        raise Unreadable("this is not the body of a heads entry")
    heads = Heads(count, root, size)
    if count < 0 or size < 0 or heads.body != body:
        raise Unreadable("the body of a heads entry is not in its canonical form")
    return heads
