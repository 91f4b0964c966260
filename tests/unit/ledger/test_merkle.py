"""The tree of RFC 6962: published vectors, and properties of frontiers and proofs."""

import json
import time
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Unproven, Unreadable
from pipeline.ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    check_consistency,
    check_inclusion,
    consistency_proof,
    extend,
    inclusion_proof,
    leaf_hash,
    node_hash,
    read_frontier,
    root_of,
    tree_root,
)

VECTORS = Path(__file__).parents[2] / "vectors" / "merkle"
LEAVES = [
    bytes.fromhex(each)
    for each in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
A = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
B = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
C = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
D = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
E = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
F = ROOTS[3]
G = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
H = "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f"


def hashed(count: int) -> list[bytes]:
    return [leaf_hash(b"%d" % number) for number in range(count)]


def nodes_of(leaves: list[bytes]) -> Callable[[int, int], bytes]:
    return lambda level, index: root_of(leaves[index << level : (index + 1) << level])


def by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962 §2.1, as it is written there."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    middle = 1
    while middle * 2 < len(leaves):
        middle *= 2
    return node_hash(by_definition(leaves[:middle]), by_definition(leaves[middle:]))


def test_hashes_are_the_published_ones() -> None:
    assert "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" == EMPTY_ROOT.hex()
    assert "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56" == leaf_hash(b"L123456").hex()
    assert "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb" == node_hash(b"N123", b"N456").hex()


def test_roots_are_the_published_ones() -> None:
    leaves = [leaf_hash(each) for each in LEAVES]

    assert ROOTS == [root_of(leaves[:size]).hex() for size in range(1, 9)]
    assert ROOTS == [tree_root(size, nodes_of(leaves)).hex() for size in range(1, 9)]
    assert EMPTY_ROOT == Frontier().root() == tree_root(0, nodes_of([]))


@pytest.mark.parametrize(
    ("index", "size", "proof"),
    [(0, 1, []), (0, 8, [A, B, C]), (5, 8, [D, E, F]), (2, 3, [ROOTS[1]]), (1, 5, [ROOTS[0], B, D])],
)
def test_inclusion_proofs_are_the_published_ones(index, size, proof) -> None:
    made = inclusion_proof(index, size, nodes_of([leaf_hash(each) for each in LEAVES]))

    assert proof == [each.hex() for each in made]
    check_inclusion(leaf_hash(LEAVES[index]), index, size, made, bytes.fromhex(ROOTS[size - 1]))


@pytest.mark.parametrize(
    ("old", "new", "proof"), [(1, 1, []), (1, 8, [A, B, C]), (6, 8, [G, E, F]), (2, 5, [B, D]), (6, 7, [G, H, F])]
)
def test_consistency_proofs_are_the_published_ones(old, new, proof) -> None:
    made = consistency_proof(old, new, nodes_of([leaf_hash(each) for each in LEAVES]))

    assert proof == [each.hex() for each in made]
    check_consistency(old, new, bytes.fromhex(ROOTS[old - 1]), bytes.fromhex(ROOTS[new - 1]), made)


def test_every_published_case_of_an_inclusion_proof_has_its_verdict() -> None:
    def verdict(case: dict) -> None:
        leaf, root = b64decode(case["leafHash"] or ""), b64decode(case["root"] or "")
        check_inclusion(leaf, case["leafIdx"], case["treeSize"], [b64decode(each) for each in case["proof"] or ()], root)

    assert 98 == judged("inclusion", verdict)


def test_every_published_case_of_a_consistency_proof_has_its_verdict() -> None:
    def verdict(case: dict) -> None:
        roots = b64decode(case["root1"] or ""), b64decode(case["root2"] or "")
        check_consistency(case["size1"], case["size2"], *roots, [b64decode(each) for each in case["proof"] or ()])

    assert 98 == judged("consistency", verdict)


def judged(folder: str, verdict: Callable[[dict], None]) -> int:
    files = sorted((VECTORS / folder).rglob("*.json"))
    for file in files:
        case = json.loads(file.read_text())
        try:
            verdict(case)
        except Unproven:
            assert case["wantErr"], file
        else:
            assert not case["wantErr"], file
    return len(files)


@given(st.integers(0, 600), st.integers(0, 600))
def test_a_frontier_that_was_extended_in_two_steps_is_that_of_all_leaves(first, second) -> None:
    leaves = hashed(first + second)
    frontier = extend(extend(Frontier(), leaves[:first]), leaves[first:])

    assert extend(Frontier(), leaves) == frontier == read_frontier(frontier.size, frontier.packed)
    assert by_definition(leaves) == frontier.root()


def test_all_proofs_of_small_trees_hold_and_are_as_short_as_they_must_be() -> None:
    leaves = hashed(34)
    roots = [root_of(leaves[:size]) for size in range(35)]
    for size in range(1, 35):
        node = nodes_of(leaves[:size])
        for index in range(size):
            proof = inclusion_proof(index, size, node)
            check_inclusion(leaves[index], index, size, proof, roots[size])
            assert len(proof) <= (size - 1).bit_length()
        for old in range(1, size + 1):
            check_consistency(old, size, roots[old], roots[size], consistency_proof(old, size, node))


@given(st.data())
def test_no_other_leaf_place_or_root_passes(data) -> None:
    size = data.draw(st.integers(2, 80))
    leaves, index = hashed(size), data.draw(st.integers(0, size - 1))
    node, root = nodes_of(leaves), root_of(leaves)
    proof = inclusion_proof(index, size, node)
    other = data.draw(st.integers(0, size - 1).filter(lambda each: each != index))
    position, flip = data.draw(st.integers(0, len(proof) * 32 - 1)), data.draw(st.integers(1, 255))
    altered = bytearray(b"".join(proof))
    altered[position] ^= flip
    wrong = [bytes(altered[at : at + 32]) for at in range(0, len(altered), 32)]

    for leaf, place, hashes, top in (
        (leaves[other], index, proof, root),
        (leaves[index], other, proof, root),
        (leaves[index], index, wrong, root),
        (leaves[index], index, proof[:-1], root),
        (leaves[index], index, (*proof, root), root),
        (leaves[index], index, proof, root_of(leaves[:-1])),
    ):
        with pytest.raises(Unproven):
            check_inclusion(leaf, place, size, hashes, top)


@given(
    st.lists(st.binary(max_size=40) | st.binary(min_size=32, max_size=32), max_size=70),
    st.integers(-(2**70), 2**70),
    st.integers(-(2**70), 2**70) | st.integers(0, 40),
    st.binary(min_size=32, max_size=32),
)
def test_garbage_is_refused_with_our_error_only(proof, one, two, root) -> None:
    for check in (
        lambda: check_inclusion(b"x" * 32, one, two, proof, root),
        lambda: check_consistency(one, two, b"x" * 32, root, proof),
        lambda: read_frontier(two, b"".join(proof)),
    ):
        with suppress(Unreadable):
            check()


def test_a_proof_of_what_cannot_be_is_refused() -> None:
    node = nodes_of(hashed(3))

    for wanted in (lambda: inclusion_proof(3, 3, node), lambda: inclusion_proof(-1, 3, node)):
        with pytest.raises(Unproven):
            wanted()
    with pytest.raises(Unproven):
        consistency_proof(4, 3, node)
    assert () == consistency_proof(0, 3, node)


def test_three_hundred_thousand_leaves_take_less_than_a_second_of_cpu() -> None:
    leaves = hashed(1000) * 100
    best = min(cpu_of(leaves) for _ in range(3))

    assert best < len(leaves) / 300_000


def cpu_of(leaves: list[bytes]) -> float:
    began = time.thread_time()
    extend(Frontier(), leaves)
    return time.thread_time() - began
