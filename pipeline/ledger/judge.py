"""May a log be sealed? Its own leaves must continue every checkpoint of it that was ever seen outside the database.

1. No checkpoint outside is larger than the log: else the database is older than what was published.
2. The published tiles lead to a tail; with our own leaves it has the published root at the published size. Where the tiles are
   missing or wrong, our own leaves do from the first one on.
3. At the size of every other checkpoint outside, the tree has its root: by our own leaves where it lies after the tail's
   beginning, else by a consistency proof from the published tiles, which those leaves have just confirmed.
4. At the log's size, our own leaves have the root of the log's compact range.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.errors import Unreadable
from pipeline.ledger.growth import File, Tail, read_tail
from pipeline.ledger.merkle import check_consistency, consistency_proof
from pipeline.ledger.tiles import Read, TileReader

Leaves = Callable[[int, int], Iterable[bytes]]  # the envelopes of the leaves from, and before, these positions


@dataclass(frozen=True, slots=True)
class Outside:
    """A checkpoint of the log that somebody outside the database keeps; `root` is None if he tells only its size."""

    place: str
    size: int
    root: bytes | None


class Refused(Exception):
    """The log must not be sealed. `kind` is `smaller`, `inconsistent`, `leaves`, `checkpoint` or `incarnation`."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Judged:
    """The log may be sealed. `tail` ends at its size; `since` ended where the files that are to be written begin.

    `since.size` is 0 when the published tiles cannot be used, and all are to be written again.
    """

    since: Tail
    tail: Tail


def judge(size: int, root: bytes, published: Outside | None, others: Sequence[Outside], leaves: Leaves, read: Read) -> Judged:
    """Judge a log of `size` leaves with this root against what was seen outside. Raises `Refused`.

    `leaves` gives our own; `read` reads the published files.
    """
    seen = [published, *others] if published is not None else list(others)
    for each in seen:
        if each.size > size:
            raise Refused("smaller", f"{each.place} has a checkpoint of size {each.size}, and the log has only {size} leaves")
    seen = [each for each in seen if each.root is not None]
    try:
        since = read_tail(published.size, read) if published is not None else Tail()
        return Judged(since, _walked(size, root, since, published, seen, leaves, read))
    except Unreadable:
        pass  # the published tiles are missing or damaged: our own leaves decide
    since = Tail()
    return Judged(since, _walked(size, root, since, None, seen, leaves, read))


def _walked(
    size: int, root: bytes, since: Tail, published: Outside | None, seen: Sequence[Outside], leaves: Leaves, read: Read
) -> Tail:
    """The tail at `size`. Raises `Unreadable` when the published tiles do not lead to the published root."""
    tail = since.copy()
    for each in sorted((each for each in seen if each.size >= since.size), key=lambda each: each.size):
        _extend(tail, each.size, leaves)
        if tail.root() != each.root:
            if each is published and since.size:
                raise Unreadable("the published tiles do not belong to the published checkpoint")
            raise Refused(
                "inconsistent",
                f"at size {each.size} the checkpoint of {each.place} has another root than the log's own leaves",
            )
    if published is not None:
        for each in seen:
            if each.size < since.size:
                _confirm(each, published, read)
    _extend(tail, size, leaves)
    if tail.root() != root:
        raise Refused("leaves", f"the log's {size} leaves do not have the root that the log has for them")
    return tail


def _extend(tail: Tail, size: int, leaves: Leaves) -> None:
    if tail.size == size:
        return
    for _ in tail.grow(leaves(tail.size, size)):
        pass  # the files are written once the log may be sealed
    if tail.size != size:
        raise Refused("leaves", f"the leaf at position {tail.size} is missing, or its entry")


def _confirm(old: Outside, published: Outside, read: Read) -> None:
    """Check that the published tree continues an older checkpoint. Raises `Refused`, or `Unreadable` for damaged tiles."""
    if old.size == 0:
        return
    reader = TileReader(read, published.size)
    proof = consistency_proof(old.size, published.size, reader.node)
    assert old.root is not None
    assert published.root is not None
    check_consistency(old.size, published.size, old.root, published.root, proof)


def grown(since: Tail, tail: Tail, leaves: Leaves) -> Iterator[File]:
    """The files to publish for a log that grew from `since` to `tail`: full ones as they fill, then the incomplete ones."""
    growing = since.copy()
    yield from growing.grow(leaves(since.size, tail.size))
    yield from tail.partial()
