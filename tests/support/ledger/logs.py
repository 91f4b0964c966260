"""A published log as a dictionary of files, made from its entries."""

from collections.abc import Iterable, Sequence

from pipeline.ledger.merkle import leaf_hash, root_of
from pipeline.ledger.tiles import WIDTH, encode_entries, entries_path, tiles_between


def published(entries: Sequence[bytes], sizes: Iterable[int]) -> dict[str, bytes]:
    """The tiles and entries of a log that published a checkpoint at each of `sizes`; without the checkpoints."""
    files, old = {}, 0
    levels = [[leaf_hash(each) for each in entries]]
    while len(levels[-1]) >= WIDTH:
        below = levels[-1]
        levels.append([root_of(below[at : at + WIDTH]) for at in range(0, len(below) - WIDTH + 1, WIDTH)])
    for size in sizes:
        for tile in tiles_between(old, size):
            first = tile.number * WIDTH
            files[tile.path] = b"".join(levels[tile.level][first : first + tile.width])
            if not tile.level:
                files[entries_path(tile.number, tile.width)] = encode_entries(entries[first : first + tile.width])
        old = size
    return files
