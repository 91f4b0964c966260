"""The published files of a log, and the proofs that are made from them."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Unreadable
from pipeline.ledger.merkle import (
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    tree_root,
)
from pipeline.ledger.tiles import TileReader, decode_entries, encode_entries, entries_path, tile_path, tiles_between
from pipeline.ledger.tlog_proof import ConsistencyProof, InclusionProof, read_consistency_proof, read_inclusion_proof
from support.ledger.logs import published

SIZE = 70_000
ENTRIES = [b"entry %d" % number for number in range(SIZE)]
FILES = published(ENTRIES, [SIZE])
LEAVES = [leaf_hash(each) for each in ENTRIES]
CHECKPOINT = "log\n1\nroot\n\n— log AAAA\n"
EXAMPLE = f"""c2sp.org/tlog-proof@v1
extra YWdl
index 73894
gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=

{CHECKPOINT}"""
REQUEST = f"""old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=

{CHECKPOINT}"""


def read(path: str) -> bytes:
    try:
        return FILES[path]
    except KeyError:
        raise FileNotFoundError(path) from None


def test_paths_are_those_of_the_specification() -> None:
    assert "tile/0/x001/x234/067" == tile_path(0, 1234067)
    assert "tile/1/000.p/17" == tile_path(1, 0, 17)
    assert "tile/entries/x273/000.p/112" == entries_path(273_000, 112)
    assert "tile/entries/999" == entries_path(999)


def test_a_log_of_70_000_has_the_tiles_that_the_specification_names() -> None:
    tiles = list(tiles_between(0, SIZE))

    assert [(0, number, 256) for number in range(273)] == tiles[:273]
    assert [(0, 273, 112), (1, 0, 256), (1, 1, 17), (2, 0, 1)] == tiles[273:]
    assert [(0, 0, 256), (1, 0, 1)] == list(tiles_between(0, 256))
    assert "tile/1/001.p/17" == tiles[-2].path


@given(st.integers(0, 200_000), st.integers(0, 3000))
def test_what_is_published_bit_by_bit_is_what_is_published_at_once(size, more) -> None:
    both = [*tiles_between(0, size), *tiles_between(size, size + more)]

    assert set(tiles_between(0, size + more)) <= set(both)
    assert len(both) == len(set(both))


def test_entries_are_read_as_they_were_written() -> None:
    entries = [b"", b"a", b"b" * 65_535]

    assert entries == decode_entries(encode_entries(entries), 3)
    with pytest.raises(Unreadable, match="too long"):
        encode_entries([b"c" * 65_536])
    for raw, width in ((b"\x00", 1), (b"\x00\x02a", 1), (b"\x00\x01a", 2), (b"", 1), (b"\x00\x00\x00\x00", 1)):
        with pytest.raises(Unreadable):
            decode_entries(raw, width)


def test_the_reader_gives_the_hashes_of_the_tree() -> None:
    reader = TileReader(read, SIZE)

    assert root_of(LEAVES) == tree_root(SIZE, reader.node)
    assert LEAVES[69_999] == reader.node(0, 69_999)
    assert root_of(LEAVES[65_536:69_632]) == reader.node(12, 16)
    assert ENTRIES[69_888:] == reader.entries(273)
    assert ENTRIES[:256] == reader.entries(0)


@settings(max_examples=40)
@given(st.data())
def test_proofs_made_from_tiles_hold(data) -> None:
    size = data.draw(st.integers(1, 2000) | st.sampled_from([65_535, 65_536, 65_537]))
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    node = TileReader(padded, size).node
    root = root_of(LEAVES[:size])

    check_inclusion(LEAVES[index], index, size, inclusion_proof(index, size, node), root)
    check_consistency(old, size, root_of(LEAVES[:old]), root, consistency_proof(old, size, node))


def padded(path: str) -> bytes:
    """As a log that keeps full tiles only, and all others as they are for the newest checkpoint."""
    whole, partial, width = path.partition(".p/")
    if not partial:
        return read(path)
    raw = FILES.get(whole) or next(raw for name, raw in FILES.items() if name.startswith(f"{whole}.p/"))
    return raw[: int(width) * 32]


def test_a_full_tile_stands_for_a_partial_one_that_is_gone() -> None:
    reader = TileReader(read, 300)

    assert LEAVES[299] == reader.node(0, 299)
    assert ENTRIES[256:300] == reader.entries(1)
    with pytest.raises(Unreadable):
        reader.node(0, 300)


def test_what_is_not_in_the_tree_or_not_there_is_unreadable() -> None:
    reader = TileReader(read, SIZE)

    for level, index in ((0, SIZE), (17, 0), (8, 273), (0, -1), (-1, 0), (400, 0)):
        with pytest.raises(Unreadable):
            reader.node(level, index)
    with pytest.raises(Unreadable, match=r"tile/0/000\.p/5 is not"):
        TileReader(missing, 5).node(0, 0)
    with pytest.raises(Unreadable, match="bytes instead of"):
        TileReader(lambda _: b"short", 5).node(0, 0)
    with pytest.raises(Unreadable):
        reader.entries(274)


def missing(path: str) -> bytes:
    raise FileNotFoundError(path)


def test_a_proof_of_inclusion_is_read_as_it_was_written() -> None:
    proof = read_inclusion_proof(EXAMPLE.encode())

    assert (73894, 2, b"age", CHECKPOINT) == (proof.index, len(proof.hashes), proof.extra, proof.checkpoint)
    assert EXAMPLE == proof.text
    alone = InclusionProof(0, (), CHECKPOINT)
    assert alone == read_inclusion_proof(alone.text)


def test_a_proof_of_consistency_is_the_body_of_a_request_to_a_witness() -> None:
    proof = read_consistency_proof(REQUEST)

    assert (20852014, 1, CHECKPOINT) == (proof.old, len(proof.hashes), proof.checkpoint)
    assert REQUEST == proof.text
    assert ConsistencyProof(0, (), CHECKPOINT) == read_consistency_proof(f"old 0\n\n{CHECKPOINT}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c2sp.org/tlog-proof@v2\nindex 0\n\n" + CHECKPOINT,
        "c2sp.org/tlog-proof@v1\n\n" + CHECKPOINT,
        "c2sp.org/tlog-proof@v1\nindex 00\n\n" + CHECKPOINT,
        "c2sp.org/tlog-proof@v1\nindex  0\n\n" + CHECKPOINT,
        "c2sp.org/tlog-proof@v1\nindex 0\nAAAA\n\n" + CHECKPOINT,
        "c2sp.org/tlog-proof@v1\nindex 0\n" + ("A" * 43 + "=\n") * 64 + "\n" + CHECKPOINT,
        "c2sp.org/tlog-proof@v1\nextra \nextra \nindex 0\n\n" + CHECKPOINT,
        "c2sp.org/tlog-proof@v1\nextra YWdl=\nindex 0\n\n" + CHECKPOINT,
        "c2sp.org/tlog-proof@v1\r\nindex 0\r\n\r\n" + CHECKPOINT,
        "c2sp.org/tlog-proof@v1\nindex 0\n",
        "old -1\n\n" + CHECKPOINT,
        "old 1 \n\n" + CHECKPOINT,
        "\n\n",
        "a" * 2_000_001,
    ],
)
def test_what_is_no_proof_is_unreadable(text) -> None:
    for read_proof in (read_inclusion_proof, read_consistency_proof):
        with pytest.raises(Unreadable):
            read_proof(text.encode())


@given(st.binary(max_size=300), st.integers(0, 300))
def test_garbage_is_refused_with_our_error_only(garbage, width) -> None:
    for attempt in (
        lambda: read_inclusion_proof(garbage),
        lambda: read_consistency_proof(garbage),
        lambda: read_inclusion_proof(b"c2sp.org/tlog-proof@v1\nindex 1\n" + garbage),
        lambda: decode_entries(garbage, width),
        lambda: TileReader(lambda _: garbage, width).node(0, width - 1),
        lambda: TileReader(lambda _: garbage, width).entries(0),
    ):
        with suppress(Unreadable):
            attempt()
