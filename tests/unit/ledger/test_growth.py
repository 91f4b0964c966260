"""The files of a growing log, what may be sealed, and heads."""

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Unreadable
from pipeline.ledger.growth import Tail, outgrown, read_tail
from pipeline.ledger.heads import Gathered, Heads, Member, member_proofs, read_heads
from pipeline.ledger.judge import Leaves, Outside, Refused, grown, judge
from pipeline.ledger.merkle import check_inclusion, leaf_hash, root_of
from pipeline.ledger.tiles import Read
from support.ledger.logs import published

ENTRIES = [b"entry %d" % number for number in range(70_000)]
FEW = ENTRIES[:2100]
HASHES = [leaf_hash(each) for each in ENTRIES]


def leaves(entries: list[bytes] = ENTRIES) -> Leaves:
    return lambda first, last: iter(entries[first:last])


def root(size: int) -> bytes:
    return root_of(HASHES[:size])


def reading(files: dict[str, bytes]) -> Read:
    def read(path: str) -> bytes:
        if path not in files:
            raise FileNotFoundError(path)
        return files[path]

    return read


def sealed(size: int, place: str = "place") -> Outside:
    return Outside(place, size, root(size))


@pytest.mark.parametrize("sizes", [(1,), (255, 256, 257), (511, 1025), (300, 65_535, 65_536, 65_537, 66_300)])
def test_a_log_that_grows_has_the_files_that_its_entries_make(sizes: tuple[int, ...]) -> None:
    files: dict[str, bytes] = {}
    before = None
    for size in sizes:
        judged = judge(size, root(size), before, [], leaves(), reading(files))
        files.update(grown(judged.since, judged.tail, leaves()))
        before = sealed(size)

    assert published(ENTRIES, sizes) == files


def test_what_full_tiles_replace_is_named() -> None:
    files = published(FEW, [300, 513])

    assert {"tile/0/001.p", "tile/entries/001.p"} == set(outgrown(300, 513))
    assert {path.rpartition("/")[0] for path in files if ".p/44" in path} == {"tile/0/001.p", "tile/entries/001.p"}
    assert [] == outgrown(300, 511)
    assert [] == outgrown(512, 600)


@given(st.integers(1, 2000), st.integers(0, 2000))
def test_a_log_may_be_sealed_that_continues_what_is_outside(size: int, before: int) -> None:
    before = min(before, size)
    files = published(FEW, [before])
    outside = sealed(before) if before else None

    judged = judge(size, root(size), outside, [sealed(max(before // 2, 1), "anchor")], leaves(), reading(files))

    assert (size, root(size)) == (judged.tail.size, judged.tail.root())
    assert before // 256 * 256 == judged.since.size


OTHERS = [b"other %d" % number for number in range(2000)]
MIXED = FEW[:500] + OTHERS[500:]


@pytest.mark.parametrize(
    ("kind", "size", "entries", "before", "anchors"),
    [
        ("smaller", 400, ENTRIES, sealed(401), []),
        ("smaller", 400, ENTRIES, sealed(300), [Outside("witness", 401, None)]),
        ("inconsistent", 900, MIXED, sealed(600), []),
        ("inconsistent", 900, MIXED, None, [sealed(600)]),
        ("inconsistent", 900, ENTRIES, sealed(600), [Outside("anchor", 300, b"x" * 32)]),
        ("inconsistent", 900, ENTRIES, sealed(600), [Outside("anchor", 300, b"")]),
        ("inconsistent", 900, ENTRIES, sealed(600), [Outside("anchor", 700, b"x" * 32)]),
        ("leaves", 900, ENTRIES[:899], sealed(600), []),
    ],
)
def test_a_log_that_does_not_continue_it_is_refused(
    kind: str, size: int, entries: list[bytes], before: Outside | None, anchors: list[Outside]
) -> None:
    files = published(FEW, [before.size]) if before else {}
    own = root_of(map(leaf_hash, entries[:size]))

    with pytest.raises(Refused) as refused:
        judge(size, own, before, anchors, leaves(entries), reading(files))

    assert kind == refused.value.kind


def test_leaves_that_are_not_those_of_the_logs_own_root_are_refused() -> None:
    with pytest.raises(Refused, match="do not have the root"):
        judge(900, b"x" * 32, sealed(600), [], leaves(), reading(published(FEW, [600])))


@pytest.mark.parametrize("damage", ["missing", "short", "wrong"])
def test_damaged_tiles_are_made_again_from_the_logs_own_leaves(damage: str) -> None:
    files = published(FEW, [600])
    del files["tile/1/000.p/2"]
    if damage != "missing":
        files["tile/1/000.p/2"] = b"x" * (64 if damage == "wrong" else 63)

    judged = judge(700, root(700), sealed(600), [], leaves(), reading(files))

    assert 0 == judged.since.size
    assert published(FEW, [700]) == dict(grown(judged.since, judged.tail, leaves()))


def test_a_tail_of_nothing_is_that_of_an_empty_log() -> None:
    assert Tail() == read_tail(255, reading({}))


def members(count: int) -> list[Member]:
    chains = sorted((UUID(int=number * 7 + 1) for number in range(count)), key=lambda each: each.bytes)
    return [Member(chain, at, bytes([at % 256]) * 32) for at, chain in enumerate(chains)]


@given(st.integers(1, 300), st.data())
def test_a_chain_is_proved_to_be_among_the_heads(count: int, data: st.DataObject) -> None:
    all_of_them = members(count)
    wanted = set(data.draw(st.lists(st.sampled_from([each.chain_id for each in all_of_them]), max_size=5)))
    gathered = Gathered()
    gathered.add(all_of_them)
    heads = gathered.heads(1000)

    proofs = member_proofs(count, iter(all_of_them), wanted | {uuid4()})

    assert wanted == proofs.keys()
    assert heads == read_heads(heads.body)
    for proof in proofs.values():
        assert count == proof.count
        check_inclusion(leaf_hash(proof.member.data), proof.index, count, proof.proof, heads.root)


def test_chains_that_are_not_in_their_order_are_refused() -> None:
    with pytest.raises(Unreadable):
        Gathered().add(reversed(members(2)))


def test_members_that_are_not_all_are_refused() -> None:
    with pytest.raises(Unreadable, match="3 chains"):
        member_proofs(4, iter(members(3)), {members(1)[0].chain_id})


def test_the_body_of_heads_is_canonical() -> None:
    heads = Heads(2, b"\xab" * 32, 9)

    assert b'{"count":2,"root":"' + b"ab" * 32 + b'","size":9}' == heads.body
    for bad in (b"", b"[]", heads.body + b" ", heads.body.replace(b"ab", b"AB"), heads.body.replace(b"2", b"true", 1)):
        with pytest.raises(Unreadable):
            read_heads(bad)
