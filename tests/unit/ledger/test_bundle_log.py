"""What a bundle shows of its log, and each way in which it can be wrong."""

import base64
import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from ops.cli import main
from pipeline.errors import Unreadable
from pipeline.ledger.bundles.bundle import entry_line, header_line
from pipeline.ledger.bundles.bundle_verify import Known, VerifiedBundle, verify_bundle
from pipeline.ledger.checkpoint import Checkpoint, open_checkpoint
from pipeline.ledger.notes import Signer, read_vkey, sign
from pipeline.ledger.tlog_proof import read_consistency_proof
from schemas.ledger.fault import Fault
from support.ledger.bundles import NOW, SIGNER, Ledger

KEYED = Known([SIGNER.key])
OTHER = Signer("ledger.example/acme", bytes(32))


def check(lines: list[bytes], known: Known = KEYED) -> tuple[VerifiedBundle, list[Fault]]:
    faults: list[Fault] = []
    return verify_bundle(io.BytesIO(b"".join(lines)), known, faults.append), faults


def kinds(lines: list[bytes], known: Known = KEYED) -> list[str]:
    return [fault.kind for fault in check(lines, known)[1]]


def shown(found: VerifiedBundle) -> list[str]:
    return [each.claim for each in found.shown]


def not_shown(found: VerifiedBundle) -> list[str]:
    return [each.claim for each in found.not_shown]


def ledger(rounds: int = 3, *, heads: bool = True, signer: Signer = SIGNER) -> Ledger:
    made = Ledger(signer)
    for _ in range(rounds):
        for chain in (1, 2, 3):
            made.record(chain)
    if heads:
        made.state_heads()
    return made


def changed(lines: list[bytes], at: int, edit: Callable[[Any], object]) -> list[bytes]:
    members = json.loads(lines[at])
    edit(members)
    return [*lines[:at], json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode() + b"\n", *lines[at + 1 :]]


def line_of(lines: list[bytes], member: str) -> int:
    return next(at for at, line in enumerate(lines) if line.startswith(f'{{"{member}"'.encode()))


def test_a_whole_ledger_is_shown_to_be_signed_sealed_and_complete() -> None:
    found, faults = check(ledger().lines())

    assert ([], "intact", 10, ("ledger.example/acme",)) == (
        faults,
        found.verified.verdict,
        found.checkpoint.size,
        found.signed_by,
    )
    assert (["unaltered", "signed", "sealed", "complete"], ["complete", "consistent"]) == (shown(found), not_shown(found))
    assert [] == found.unsealed
    assert "no chain is left out" in found.shown[3].detail


def test_without_a_key_everything_but_the_signature_is_checked() -> None:
    lines = ledger().lines()
    found, faults = check(lines, Known())

    assert ([], ["signed", "complete", "consistent"]) == (faults, not_shown(found))
    assert ["inclusion", "inclusion"] == kinds(changed(lines, line_of(lines, "checkpoint"), another_root), Known())[:2]


def another_root(members: dict) -> None:
    members["checkpoint"] = sign(Checkpoint(SIGNER.name, 10, bytes(32)).text, [SIGNER])


def test_one_subject_is_shown_to_be_complete_and_the_others_not_to_be_there() -> None:
    found, faults = check(ledger().lines(only=[2]))

    assert ([], 1, 3) == (faults, found.verified.chains, found.verified.entries)
    assert "of 1 chains, these are all entries among the log's first 9 leaves; 2 other chains" in found.shown[3].detail


def test_entries_after_the_last_sealed_one_are_named() -> None:
    made = ledger(heads=False)
    found, faults = check(made.lines(5))

    assert [] == faults
    assert [("order-1", 2, 2), ("order-2", 2, 2), ("order-3", 1, 2)] == [each[1:] for each in found.unsealed]
    assert "5 of 9 entries" in found.shown[2].detail
    assert ["complete", "consistent"] == not_shown(found)


def test_a_chain_that_the_log_does_not_have_yet_is_named() -> None:
    made = ledger(heads=False)
    lines = made.lines()
    made.record(4)
    lines.insert(10, entry_line(made.chains[UUID(int=4)][0]))

    assert [(UUID(int=4).hex, "order-4", 0, 0)] == list(check(lines)[0].unsealed)


def test_every_edit_of_the_log_s_lines_is_named() -> None:
    lines = ledger().lines()
    sealed, first, heads = line_of(lines, "checkpoint"), line_of(lines, "inclusion"), line_of(lines, "heads")

    def inclusion(**members: object) -> list[bytes]:
        return changed(lines, first, lambda line: line["inclusion"].update(members))

    def member(**members: object) -> list[bytes]:
        return changed(lines, heads, lambda line: line["heads"]["members"][1].update(members))

    def note(text: str) -> list[bytes]:
        return changed(lines, sealed, lambda line: line.update(checkpoint=text))

    wrong = base64.b64encode(bytes(32)).decode()
    for expected, edited in (
        ({"checkpoint", "inclusion"}, note(sign(ledger().checkpoint().text, [OTHER]))),
        ({"checkpoint", "inclusion"}, note(ledger().note().replace("10", "11", 1))),
        ({"checkpoint", "inclusion"}, note("no note")),
        ({"checkpoint"}, [*lines, lines[sealed]]),
        ({"checkpoint", "inclusion"}, [*lines[:sealed], *lines[sealed + 1 :]]),
        ({"inclusion"}, inclusion(index=7)),
        ({"inclusion"}, inclusion(size=9)),
        ({"inclusion"}, inclusion(seq=1)),
        ({"inclusion"}, inclusion(seq=9)),
        ({"inclusion"}, inclusion(chain="0" * 32)),
        ({"inclusion"}, inclusion(proof=[])),
        ({"inclusion"}, inclusion(proof=[wrong] * 4)),
        ({"line"}, inclusion(proof=[wrong[:-2] + "B="] * 4)),
        ({"line"}, inclusion(proof=[wrong] * 64)),
        ({"line"}, inclusion(index=True)),
        ({"line"}, inclusion(more=1)),
        ({"line"}, inclusion(chain="0" * 31)),
        ({"heads"}, member(seq=1)),
        ({"heads"}, member(hash="0" * 64)),
        ({"heads"}, member(index=0)),
        ({"heads"}, member(count=4)),
        ({"heads"}, member(chain="0" * 32)),
        ({"line"}, member(hash="A" * 64)),
        ({"line"}, changed(lines, heads, lambda line: line["heads"].pop("members"))),
        ({"line"}, changed(lines, heads, lambda line: line["heads"].update(members={}))),
        ({"heads"}, changed(lines, heads, lambda line: line["heads"]["entry"].update(content=None))),
        ({"heads"}, changed(lines, heads, lambda line: line["heads"]["entry"].update(hash="0" * 64))),
        ({"heads"}, changed(lines, heads, lambda line: line["heads"]["entry"]["content"].update(salt="0" * 64))),
        ({"heads"}, changed(lines, heads, lambda line: line["heads"]["inclusion"].update(seq=4))),
        ({"inclusion"}, changed(lines, heads, lambda line: line["heads"]["inclusion"].update(proof=[]))),
        ({"line"}, [*lines, lines[1]]),
        ({"line"}, [*lines[:sealed], b"\n", *lines[sealed:]]),
    ):
        assert expected <= set(kinds(edited)), (expected, kinds(edited))


def test_no_byte_of_the_log_s_lines_can_be_changed_unseen() -> None:
    """Changes every byte of the checkpoint, the inclusions and the heads in turn."""
    made = Ledger()
    made.record(1)
    made.record(2)
    made.state_heads()
    lines = made.lines()
    raw, start = b"".join(lines), sum(map(len, lines[: line_of(lines, "checkpoint")]))
    unseen = []
    for position in range(start, len(raw) - 1):
        altered = bytearray(raw)
        altered[position] ^= 0x20 if altered[position : position + 1].isalpha() else 0x01
        if check([bytes(altered)])[0].verified.verdict == "intact":
            unseen.append((position - start, raw[position - 20 : position + 20]))

    assert [] == unseen


def test_a_heads_entry_cannot_be_an_event_of_somebody_s() -> None:
    made = ledger(heads=False)
    made.state_heads()
    entry, said = made.said
    forged = made.record(5, entry.body, source="waxseal", type="waxseal.heads", subject="waxseal.heads")
    made.said = forged, said

    assert ["heads"] == kinds(made.lines())


def test_a_heads_entry_that_speaks_of_leaves_after_itself_is_wrong() -> None:
    made = ledger()
    later = replace(made.said[1], size=11)
    made.said = made.record(UUID(int=9999), later.body, "heads", subject="waxseal.heads"), made.said[1]

    assert ["heads"] == kinds(made.lines())


def test_a_tail_that_was_cut_is_named() -> None:
    lines = ledger().lines()

    assert ["inclusion", "chain_cut"] == kinds([*lines[:3], *lines[4:]])


def test_a_tail_that_was_cut_together_with_its_proof_is_named_by_the_heads() -> None:
    made = ledger()
    whole = made.lines()
    made.chains[UUID(int=1)].pop()
    lines = made.lines()
    made.leaves = [row for row in made.leaves if (UUID(bytes=row.chain_id).int, row.seq) != (1, 2)]
    inclusion = line_of(whole, "inclusion")
    cut = [line for line in whole if line not in (whole[3], whole[inclusion])]

    assert ["chain_cut"] == kinds(cut)
    assert "inclusion" in kinds(lines)


def test_a_chain_that_was_left_out_is_named_by_the_heads() -> None:
    lines = ledger().lines()
    inclusion = line_of(lines, "inclusion")
    left_out = [*lines[:1], *lines[4:inclusion], *lines[inclusion + 1 :]]

    assert ["chain_left_out"] == kinds(left_out)


def rewritten(size: int) -> Ledger:
    """Another ledger of the same shape, as somebody with the key would write it."""
    made = Ledger()
    for at in range(size):
        made.record(at % 3 + 1, b"another body")
    return made


@pytest.mark.parametrize("more", [0, 4])
def test_a_ledger_that_was_written_anew_is_named_with_an_older_checkpoint(more) -> None:
    older = ledger(heads=False).checkpoint()
    lines = rewritten(9 + more).lines(more=[8])

    assert ["log_rewritten"] == kinds(lines, Known(KEYED.keys, [older]))
    assert [] == kinds(lines)


def test_a_ledger_that_was_written_anew_shorter_was_rolled_back() -> None:
    made = ledger(heads=False)
    known = Known(KEYED.keys, [made.checkpoint()])
    fault = check(rewritten(6).lines(), known)[1][0]

    assert ("log_rolled_back", True) == (fault.kind, "9 leaves" in fault.detail and "has 6" in fault.detail)
    assert ["log_rolled_back"] == kinds(ledger(2, heads=False).lines(), known)


def test_an_older_checkpoint_is_shown_to_be_continued_by_the_leaf_at_its_end() -> None:
    made = ledger()
    for size in range(11):
        found, faults = check(made.lines(more=[size - 1] if size else []), Known(KEYED.keys, [made.checkpoint(size)]))

        assert ([], "consistent") == (faults, shown(found)[-1])
        assert "consistent" not in not_shown(found)


def test_an_older_checkpoint_needs_a_proof_and_its_proof_is_taken() -> None:
    made = ledger()
    lines = made.lines(only=[1])
    older = made.checkpoint(5)

    fault = check(lines, Known(KEYED.keys, [older]))[1][0]
    assert ("checkpoint", True) == (fault.kind, "--consistency 5 10" in fault.detail)
    for proofs in ([made.consistency(5, 10)], [made.consistency(7, 10), made.consistency(5, 7)]):
        found, faults = check(lines, Known(KEYED.keys, [older], proofs))
        assert ([], "consistent") == (faults, shown(found)[-1])
    assert ["checkpoint"] == kinds(lines, Known(KEYED.keys, [older], [made.consistency(5, 9)]))
    assert ["log_rewritten"] == kinds(lines, Known(KEYED.keys, [older], [rewritten(10).consistency(5, 10)]))


def test_a_newer_checkpoint_is_shown_by_a_proof_to_continue_an_older_bundle() -> None:
    made = ledger()
    made.said = None
    lines = made.lines(8, only=[1])
    newer = made.checkpoint()

    assert ["log_rolled_back"] == kinds(lines, Known(KEYED.keys, [newer]))
    assert [] == kinds(lines, Known(KEYED.keys, [newer], [made.consistency(8, 10)]))
    assert ["log_rewritten"] == kinds(lines, Known(KEYED.keys, [newer], [rewritten(10).consistency(8, 10)]))


def test_a_checkpoint_of_another_log_or_none_in_the_bundle_compares_with_nothing() -> None:
    lines = ledger().lines()
    other = Checkpoint("ledger.example/other", 10, bytes(32))

    assert ["checkpoint"] == kinds(lines, Known(KEYED.keys, [other]))
    assert ["checkpoint"] == kinds(lines[: line_of(lines, "checkpoint")], Known((), [ledger().checkpoint()]))


def restored(lost: int) -> tuple[Ledger, Ledger]:
    """A ledger, and the one that goes on from its backup, which lacks the `lost` newest entries."""
    old = ledger(heads=False)
    before = old.checkpoint(9 - lost)
    made = Ledger(Signer("ledger.example/acme/r2", SIGNER.private))
    told = {"origin": before.origin, "root": before.root.hex(), "size": before.size}
    made.record(UUID(int=7777), orjson.dumps(told), "origin", subject="waxseal.origin")
    for at in range(9 - lost):
        made.record(at % 3 + 1)
    return old, made


def test_a_log_that_began_anew_after_a_restore_is_compared_with_the_one_before() -> None:
    for lost, expected in ((0, []), (2, ["log_rolled_back"])):
        old, made = restored(lost)
        known = Known([SIGNER.key, made.signer.key], [old.checkpoint()])
        assert expected == kinds(made.lines(), known)

    old, made = restored(0)
    known = Known([SIGNER.key, made.signer.key], [old.checkpoint(4)])
    assert ["checkpoint"] == kinds(made.lines(), known)
    assert [] == kinds(made.lines(), replace(known, proofs=[old.consistency(4, 9)]))
    assert ["log_rewritten"] == kinds(made.lines(), replace(known, checkpoints=[rewritten(9).checkpoint()]))


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b'{"origin":1,"root":"00","size":1}', b'{"origin":"a","root":"%s","size":1}' % (b"g" * 64)]
)
def test_an_origin_entry_that_names_no_log_is_a_fault(body) -> None:
    made = ledger(heads=False)
    made.record(UUID(int=7777), body, "origin", subject="waxseal.origin")

    assert ["origin"] == kinds(made.lines())


def test_the_log_has_the_entries_of_a_chain_in_their_order() -> None:
    made = ledger(heads=False)
    made.leaves[1], made.leaves[4] = made.leaves[4], made.leaves[1]

    assert ["inclusion"] == kinds(made.lines(more=[1, 4]))


def test_keys_may_be_several_and_one_of_the_log_s_must_have_signed() -> None:
    lines = ledger().lines()

    assert [] == kinds(lines, Known([OTHER.key, SIGNER.key]))
    assert "checkpoint" in kinds(lines, Known([OTHER.key]))
    assert "checkpoint" in kinds(lines, Known([Signer("ledger.example/other", SIGNER.private).key]))


def test_content_that_an_erasure_lists_is_rightly_missing() -> None:
    made = ledger(heads=False)
    made.erase(1, [0, 1])
    found, faults = check(made.lines())

    assert ([], "intact") == (faults, found.verified.verdict)


@pytest.mark.parametrize(
    ("expected", "spans", "changed"),
    [
        (["content_missing"], [[0, 1]], {"seqs": [[0, 0]]}),
        (["content_missing"] * 2, [[0, 1]], {"seqs": []}),
        (["content_erased"], [[0, 1]], {"seqs": [[0, 2]]}),
        (["erasure", "content_missing"], [[0, 0]], {"seqs": [[0, 3]]}),
        (["erasure", "content_missing"], [[0, 0]], {"seqs": [[1, 1], [0, 0]]}),
        (["erasure", "content_missing"], [[0, 0]], {"seqs": [[0, 2**63]]}),
        (["erasure", "content_missing"], [[0, 0]], {"more": 1}),
        (["erasure", "content_missing"], [[0, 0]], {"subject": 1}),
    ],
)
def test_an_erasure_authorises_what_it_lists_and_nothing_else(expected, spans, changed) -> None:
    made = ledger(heads=False)
    made.erase(1, *spans, **changed)

    assert expected == kinds(made.lines())


def test_an_erasure_of_another_chain_authorises_nothing_and_is_never_erased() -> None:
    made = ledger(heads=False)
    made.erase(1, [0, 0])
    rows = made.chains[UUID(int=1)]
    rows[3] = rows[3]._replace(attributes=None, body=None, salt=None)
    assert ["content_missing"] * 2 == kinds(made.lines())

    made = ledger(heads=False)
    made.erase(1, [0, 0])
    made.chains[UUID(int=1)].pop()
    assert "content_missing" in kinds(made.lines(9))


@given(st.binary(max_size=120), st.sampled_from(["checkpoint", "inclusion", "heads"]))
def test_garbage_in_the_log_s_lines_is_a_fault_and_nothing_worse(garbage, member) -> None:
    line = b'{"%s":%s}\n' % (member.encode(), garbage)

    assert "broken" == check([*LINES[:-1], line])[0].verified.verdict


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(json_values, st.data())
def test_any_value_in_any_place_of_a_line_is_a_fault_and_nothing_worse(value, data) -> None:
    at = data.draw(st.sampled_from([line_of(LINES, member) for member in ("envelope", "checkpoint", "inclusion", "heads")]))
    members = json.loads(LINES[at])
    here: Any = members
    while True:
        name = data.draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here))))
        if not isinstance(here[name], dict | list) or not here[name] or data.draw(st.booleans()):
            break
        here = here[name]
    if here[name] == value:
        return
    here[name] = value
    if any(isinstance(each, int) and abs(each) >= 2**64 for each in (value,)):
        return
    line = json.dumps(members, separators=(",", ":")).encode() + b"\n"

    assert "broken" == check([*LINES[:at], line, *LINES[at + 1 :]])[0].verified.verdict


LINES = ledger(1).lines()


def test_a_bundle_with_a_checkpoint_verifies_on_the_command_line(tmp_path) -> None:
    made = ledger()
    (tmp_path / "bundle").write_bytes(b"".join(made.lines(only=[1])))
    (tmp_path / "old").write_text(made.note(5))
    (tmp_path / "proof").write_text(made.consistency(5, 10).text)

    def run(*options: str) -> tuple[int, str, str]:
        ended = CliRunner().invoke(main, ["verify-bundle", str(tmp_path / "bundle"), *options])
        return ended.exit_code, ended.stdout, ended.stderr

    old, proof, key = (
        ["--checkpoint", str(tmp_path / "old")],
        ["--consistency", str(tmp_path / "proof")],
        ["--vkey", SIGNER.vkey],
    )
    code, told, missing = run(*key, *old, *proof)
    assert (0, True, True) == (code, "shown: consistent" in told, "shown: complete" in told)
    assert "" == missing
    code, told, missing = run(*key, *old)
    assert (1, True) == (code, "checkpoint: acme: nothing shows" in told)
    code, told, missing = run()
    assert (0, True) == (code, "not shown: signed" in missing)
    assert 2 == run("--vkey", "nonsense")[0]
    assert 2 == run(*key, "--checkpoint", str(tmp_path / "bundle"))[0]
    assert 2 == run(*key, "--consistency", str(tmp_path / "bundle"))[0]
    (tmp_path / "old").write_text(sign(made.checkpoint(5).text, [OTHER]))
    assert 2 == run(*key, *old)[0]
    told = json.loads(run(*key, "--json")[1])
    assert {"origin": "ledger.example/acme", "size": 10, "signed_by": ["ledger.example/acme"]}.items() <= told[
        "checkpoint"
    ].items()


def test_the_published_bundle_verifies_as_the_page_says() -> None:
    files = {path.name: path for path in (Path(__file__).parents[2] / "vectors" / "bundle").iterdir()}
    key = read_vkey(files["vkey"].read_text().strip())
    older, _ = open_checkpoint(files["older-checkpoint"].read_bytes(), [key])
    proof = read_consistency_proof(files["consistency"].read_bytes())
    lines = files["bundle.jsonl"].read_bytes().splitlines(keepends=True)

    found, faults = check(lines, Known([key], [older]))
    assert ([], 8, 4, ["order-2"]) == (
        faults,
        found.verified.entries,
        found.verified.chains,
        [each.subject for each in found.unsealed],
    )
    assert ["unaltered", "signed", "sealed", "complete", "consistent"] == shown(found)
    without = [line for line in lines if not line.startswith(b'{"inclusion"') or b'"index":3' not in line]
    assert (["checkpoint"], []) == (kinds(without, Known([key], [older])), kinds(without, Known([key], [older], [proof])))


def test_verifying_a_log_needs_neither_a_database_nor_a_broker_nor_an_http_client(tmp_path) -> None:
    made = ledger()
    file, old = tmp_path / "bundle", tmp_path / "old"
    file.write_bytes(b"".join(made.lines(more=[4])))
    old.write_text(made.note(5))
    foreign = "{'sqlalchemy', 'psycopg', 'pika', 'dramatiq', 'obstore', 'httptools', 'aiohttp', 'requests', 'pydantic'}"
    program = (
        "import sys\nfrom ops.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        f"    sys.exit(end.code or sorted({foreign} & set(sys.modules)) or 0)\n"
    )
    arguments = ["verify-bundle", str(file), "--vkey", SIGNER.vkey, "--checkpoint", str(old)]

    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, env={"PATH": ""}, check=False, timeout=30
    )

    assert (0, True) == (ended.returncode, "shown: consistent" in ended.stdout), ended.stderr


def test_a_bundle_without_entries_shows_nothing() -> None:
    found, faults = check([header_line("acme", NOW)], Known())

    assert ([], [], "nothing") == (faults, list(found.shown), found.verified.verdict)
    with pytest.raises(Unreadable):
        check([b"{}\n"])
