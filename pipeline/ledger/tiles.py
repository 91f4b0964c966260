"""The files of a published log (c2sp.org/tlog-tiles): tiles of 256 hashes, and bundles of 256 entries. Pure."""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from typing import Final, NamedTuple

from pipeline.errors import Unreadable
from pipeline.ledger.merkle import HASH_BYTES, root_of, split_hashes

WIDTH: Final = 256
HEIGHT: Final = 8  # levels of the tree in one level of tiles
LONGEST_ENTRY: Final = 0xFFFF
CHECKPOINT: Final = "checkpoint"

_LEVELS: Final = 8  # of tiles, for any size below 2**63

Read = Callable[[str], bytes]


class Tile(NamedTuple):
    """A place in the log's layout: tiles of `level` 0 hold leaf hashes, and belong to bundles of the same entries."""

    level: int
    number: int
    width: int

    @property
    def path(self) -> str:
        """Where the tile is published."""
        return tile_path(*self)


def tile_path(level: int, index: int, width: int = WIDTH) -> str:
    """Where a tile is published."""
    return f"tile/{level}/{_numbered(index, width)}"


def entries_path(index: int, width: int = WIDTH) -> str:
    """Where a bundle of entries is published."""
    return f"tile/entries/{_numbered(index, width)}"


def tiles_between(old: int, new: int) -> Iterator[Tile]:
    """The tiles that a checkpoint of size `new` needs and one of size `old` did not, level by level."""
    for level in range(_LEVELS):
        before, after = old >> HEIGHT * level, new >> HEIGHT * level
        for index in range(before // WIDTH, after // WIDTH):
            yield Tile(level, index, WIDTH)
        if after % WIDTH and after != before:
            yield Tile(level, after // WIDTH, after % WIDTH)


def encode_entries(entries: Iterable[bytes]) -> bytes:
    """A bundle of entries, each after its length in two bytes. Raises `Unreadable` for an entry that is too long."""
    parts = []
    for entry in entries:
        if len(entry) > LONGEST_ENTRY:
            raise Unreadable(f"an entry of {len(entry)} bytes is too long for a log")
        parts.append(len(entry).to_bytes(2, "big") + entry)
    return b"".join(parts)


def decode_entries(raw: bytes, width: int) -> list[bytes]:
    """The `width` entries of a bundle. Raises `Unreadable`."""
    entries, at = [], 0
    while at < len(raw):
        end = at + 2 + int.from_bytes(raw[at : at + 2], "big")
        if len(raw) < max(end, at + 2):
            raise Unreadable("a bundle of entries ends within an entry")
        entries.append(raw[at + 2 : end])
        at = end
    if len(entries) != width:
        raise Unreadable(f"a bundle holds {len(entries)} entries instead of {width}")
    return entries


class TileReader:
    """Reads the hashes of a tree of `size` leaves from its published tiles, of which the last `kept` stay in memory.

    `read` gives the file at a path, and raises FileNotFoundError if there is none. Nothing that it gives is trusted to be
    right, so check what is made of the hashes against a signed root.
    """

    def __init__(self, read: Read, size: int, kept: int = 64) -> None:
        self._read = read
        self._size = size
        self._tile = lru_cache(kept)(self._load)

    def node(self, level: int, index: int) -> bytes:
        """The hash of a full subtree of 2**level leaves. Raises `Unreadable` if it is not in the tree, or a tile is missing."""
        if level < 0 or index < 0 or (index + 1) << level > self._size:
            raise Unreadable(f"subtree {index} of level {level} is not in a tree of {self._size} leaves")
        tiles, above = divmod(level, HEIGHT)
        first, count = index << above, 1 << above
        at = first % WIDTH * HASH_BYTES
        hashes = self._tile(tiles, first // WIDTH)[at : at + count * HASH_BYTES]
        return hashes if count == 1 else root_of(split_hashes(hashes))

    def entries(self, index: int) -> list[bytes]:
        """The entries of the bundle `index`. Raises `Unreadable`."""
        width = self._width(0, index)
        path, raw = self._file(entries_path, index, width)
        return decode_entries(raw, width if path == entries_path(index, width) else WIDTH)[:width]

    def _load(self, level: int, index: int) -> bytes:
        width = self._width(level, index)
        path, raw = self._file(partial(tile_path, level), index, width)
        held = width if path == tile_path(level, index, width) else WIDTH
        if len(raw) != held * HASH_BYTES:
            raise Unreadable(f"{path} holds {len(raw)} bytes instead of {held * HASH_BYTES}")
        return raw[: width * HASH_BYTES]

    def _width(self, level: int, index: int) -> int:
        width = min((self._size >> HEIGHT * level) - index * WIDTH, WIDTH)
        if width <= 0:
            raise Unreadable(f"tile {index} of level {level} is not in a tree of {self._size} leaves")
        return width

    def _file(self, path: Callable[[int, int], str], index: int, width: int) -> tuple[str, bytes]:
        """A file of this width, or the full one by which a log may have replaced it."""
        wanted = path(index, width)
        try:
            return wanted, self._read(wanted)
        except FileNotFoundError:
            full = path(index, WIDTH)
        try:
            return full, self._read(full)
        except FileNotFoundError:
            raise Unreadable(f"{wanted} is not in the published log") from None


def _numbered(index: int, width: int) -> str:
    """The index in groups of three digits, all but the last marked by an x, and the width unless it is full."""
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    suffix = "" if width == WIDTH else f".p/{width}"
    return "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]]) + suffix
