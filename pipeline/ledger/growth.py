"""The files of a log as it grows: full tiles and entry bundles once, and what is incomplete for the size of a checkpoint.

A `Tail` is all that the next leaf needs: the hashes in the incomplete tile of each level, and the envelopes in the incomplete
entry bundle. It has no history, so a log of a million leaves grows in as little memory as a new one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from pipeline.errors import Unreadable
from pipeline.ledger.merkle import HASH_BYTES, Frontier, leaf_hash, root_of, split_hashes
from pipeline.ledger.tiles import WIDTH, Read, encode_entries, entries_path, tile_path

LEVELS: Final = 8  # of tiles, for any size below 2**63

File = tuple[str, bytes]  # its path in the log, and its content


@dataclass(slots=True)
class Tail:
    """The end of a tree of `size` leaves. `levels[0]` are the leaf hashes in its last, incomplete tile, and so on."""

    size: int = 0
    levels: list[list[bytes]] = field(default_factory=lambda: [[] for _ in range(LEVELS)])
    envelopes: list[bytes] = field(default_factory=list)

    def copy(self) -> "Tail":
        """Another one, that grows by itself."""
        return Tail(self.size, [list(level) for level in self.levels], list(self.envelopes))

    def root(self) -> bytes:
        """The root of the tree (RFC 6962 §2.1)."""
        return Frontier(self.size, tuple(self._subtrees())).root()

    def _subtrees(self) -> Iterator[bytes]:
        """The roots of the full subtrees, the largest first."""
        for level in reversed(self.levels):
            at, rest = 0, len(level)
            while rest:
                width = 1 << (rest.bit_length() - 1)
                yield root_of(level[at : at + width])
                at, rest = at + width, rest - width

    def grow(self, envelopes: Iterable[bytes]) -> Iterator[File]:
        """Add leaves; give each tile and entry bundle when it is full."""
        leaves, bundle = self.levels[0], self.envelopes
        for envelope in envelopes:
            bundle.append(envelope)
            leaves.append(leaf_hash(envelope))
            self.size += 1
            if len(leaves) == WIDTH:
                yield entries_path(self.size // WIDTH - 1, WIDTH), encode_entries(bundle)
                bundle.clear()
                yield from self._full(0)

    def _full(self, level: int) -> Iterator[File]:
        hashes = self.levels[level]
        yield tile_path(level, (self.size >> 8 * (level + 1)) - 1, WIDTH), b"".join(hashes)
        above = self.levels[level + 1]
        above.append(root_of(hashes))
        hashes.clear()
        if len(above) == WIDTH:
            yield from self._full(level + 1)

    def partial(self) -> list[File]:
        """The incomplete tiles and the incomplete bundle, named for this size."""
        files = [
            (tile_path(level, self.size >> 8 * (level + 1), len(hashes)), b"".join(hashes))
            for level, hashes in enumerate(self.levels)
            if hashes
        ]
        if self.envelopes:
            files.append((entries_path(self.size // WIDTH, len(self.envelopes)), encode_entries(self.envelopes)))
        return files


def read_tail(size: int, read: Read) -> Tail:
    """The tail at the last multiple of 256 leaves of a published log of `size` leaves, from its tiles.

    Nothing shows yet that the tiles are right: add the leaves up to `size` and compare the root. Raises `Unreadable` when a
    tile is missing or of another length.
    """
    tail = Tail(size // WIDTH * WIDTH)
    for level in range(1, LEVELS):
        count = size >> 8 * level
        if width := count % WIDTH:
            path = tile_path(level, count // WIDTH, width)
            try:
                tile = read(path)
            except FileNotFoundError:
                raise Unreadable(f"{path} is missing") from None
            if len(tile) != HASH_BYTES * width:
                raise Unreadable(f"{path} has {len(tile)} bytes in place of {HASH_BYTES * width}")
            tail.levels[level] = list(split_hashes(tile))
    return tail


def outgrown(old: int, new: int) -> list[str]:
    """The folders of incomplete tiles and bundles of a log of `old` leaves whose full ones a log of `new` leaves has."""
    folders = []
    for level in range(LEVELS):
        count, index = old >> 8 * level, old >> 8 * (level + 1)
        if count % WIDTH and new >> 8 * (level + 1) > index:
            folders.append(_folder(tile_path(level, index, count % WIDTH)))
            if level == 0:
                folders.append(_folder(entries_path(index, count % WIDTH)))
    return folders


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
