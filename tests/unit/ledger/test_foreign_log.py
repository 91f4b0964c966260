"""Our checkpoints, tiles and proofs beside those of an implementation that nobody here wrote (tlog-scales)."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tlog_scales.backend import LocalBackend
from tlog_scales.reader import TilesReader
from tlog_scales.tlog import (
    Checkpoint,
    ConsistencyProof,
    ConsistencyProofInvalid,
    InclusionProof,
    InclusionProofInvalid,
)

from pipeline.errors import Unproven
from pipeline.ledger import checkpoint as ours
from pipeline.ledger.merkle import (
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    tree_root,
)
from pipeline.ledger.notes import Signer, sign, split_note
from pipeline.ledger.tiles import TileReader
from support.ledger.logs import published

SIZES = (1, 255, 256, 257, 700, 66_000)
ENTRIES = [b"entry %d" % number for number in range(SIZES[-1])]
LEAVES = [leaf_hash(each) for each in ENTRIES]
ROOT = root_of(LEAVES)
SIGNER = Signer("ledger.example/acme", bytes(range(32)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A log that published a checkpoint at each of `SIZES`."""
    made = tmp_path_factory.mktemp("log")
    files = published(ENTRIES, SIZES)
    files["checkpoint"] = sign(ours.Checkpoint(SIGNER.name, SIZES[-1], root_of(LEAVES)).text, [SIGNER]).encode()
    for path, content in files.items():
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        (made / path).write_bytes(content)
    return made


@pytest.fixture(scope="module")
def foreign(folder) -> TilesReader:
    reader = TilesReader(LocalBackend(folder))
    reader.get_checkpoint()
    return reader


def test_our_checkpoint_is_read_and_theirs_is_ours(folder) -> None:
    text = (folder / "checkpoint").read_text()
    theirs = Checkpoint.from_text(text)

    assert (SIGNER.name, SIZES[-1], root_of(LEAVES)) == (theirs.origin, theirs.size, theirs.root_hash)
    assert text == theirs.serialize()
    (signature,) = theirs.signatures
    (own,) = split_note(text)[1]
    assert (own.name, int.from_bytes(own.key_id), own.raw) == (signature.name, signature.key_id, signature.payload)


def test_our_tiles_have_the_root_that_theirs_would_have(foreign) -> None:
    for size in SIZES:
        foreign.set_size(size)
        assert root_of(LEAVES[:size]) == foreign.calculate_root_hash()
    assert [ENTRIES[at] for at in (0, 255, 256, 65_999)] == [foreign.get_entry(at) for at in (0, 255, 256, 65_999)]


@settings(max_examples=25)
@given(st.data())
def test_both_make_the_same_proofs_and_accept_them(folder, foreign, data) -> None:
    size = SIZES[-1]
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size - 1))
    foreign.set_size(size)
    node, root = TileReader(lambda path: (folder / path).read_bytes(), size).node, ROOT
    inclusion, consistency = inclusion_proof(index, size, node), consistency_proof(old, size, node)

    theirs = foreign.get_inclusion_proof(index, size)
    assert list(inclusion) == theirs.node_hashes
    theirs.check(LEAVES[index], root)
    older = tree_root(old, node)
    assert list(consistency) == foreign.get_consistency_proof(old, size).node_hashes
    ConsistencyProof(old, size, list(consistency)).check(older, root)


@given(st.data())
def test_both_judge_a_wrong_proof_alike(data) -> None:
    size = data.draw(st.integers(2, 70))
    leaves = LEAVES[:size]
    index, old = data.draw(st.integers(0, size + 1)), data.draw(st.integers(1, size - 1))
    hashes = data.draw(st.lists(st.sampled_from([*leaves[:3], root_of(leaves[:2]), root_of(leaves)]), max_size=7))
    right = inclusion_proof(min(index, size - 1), size, lambda level, at: root_of(leaves[at << level : (at + 1) << level]))
    for proof in (hashes, list(right)):
        leaf, root = leaves[min(index, size - 1)], root_of(leaves)
        assert accepts(InclusionProof(index, size, proof).check, leaf, root) == holds(
            check_inclusion, leaf, index, size, proof, root
        )
        roots = root_of(leaves[:old]), root
        assert accepts(ConsistencyProof(old, size, proof).check, *roots) == holds(check_consistency, old, size, *roots, proof)


def accepts(check, *given: object) -> bool:
    try:
        check(*given)
    except (InclusionProofInvalid, ConsistencyProofInvalid):
        return False
    return True


def holds(check, *given: object) -> bool:
    try:
        check(*given)
    except Unproven:
        return False
    return True
