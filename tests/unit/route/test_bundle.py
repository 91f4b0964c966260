"""Bundles: an exported one verifies offline; one that was changed in any way does not."""

import base64
import io
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.chain import encode, extend
from pipeline.errors import Unreadable
from pipeline.ledger.bundles import bundle_lines
from pipeline.ledger.bundles.bundle import entry_line, header_line
from pipeline.ledger.bundles.bundle_verify import Known, verify_bundle
from pipeline.ledger.notes import Signer
from schemas.entry import Head
from schemas.event import Event
from schemas.ledger.fault import Fault, Verified
from schemas.ledger.ledger_rows import StoredEntry

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "ledger.json").read_text())
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def stored(chain: int, subject: str, count: int, **changed: str) -> list[StoredEntry]:
    head, rows = Head(UUID(int=chain), -1, None), []
    for n in range(count):
        names = {"id": f"e{n}", "source": "shop", "specversion": "1.0", "type": "t", "datacontenttype": "text/plain"}
        event = Event(
            "acme", {**names, "subject": subject, "time": "2026-01-01T00:00:00Z", **changed}, b"body %d" % n, b"", b""
        )
        entry = extend(head, event, n, bytes([n]) * 32)
        raw = (
            entry.chain_id.bytes,
            n,
            entry.prev_hash,
            entry.hash,
            "acme",
            entry.at,
            entry.kind,
            entry.pc,
            b"",
            encode(event.attributes),
        )
        rows.append(StoredEntry(*raw, event.body, None, entry.salt, None, None, None, None))
        head = Head(entry.chain_id, n, entry.hash)
    return rows


def lines(rows: list[StoredEntry] | None = None) -> list[bytes]:
    rows = [*stored(1, "order-1", 3), *stored(2, "order-2", 2)] if rows is None else rows
    return [header_line("acme", NOW), *map(entry_line, rows)]


KNOWN = Known()
KEYED = Known([Signer("log.example/acme", bytes(32)).key])


def check(raw: bytes, known: Known = KNOWN) -> tuple[Verified, list[Fault]]:
    faults: list[Fault] = []
    return verify_bundle(io.BytesIO(raw), known, faults.append).verified, faults


def kinds(raw: bytes) -> list[str]:
    return [fault.kind for fault in check(raw)[1]]


def edited(number: int, edit: Callable[[dict], object]) -> bytes:
    all_lines = lines()
    members = json.loads(all_lines[number])
    edit(members)
    all_lines[number] = json.dumps(members, separators=(",", ":")).encode() + b"\n"
    return b"".join(all_lines)


def reenvelope(**changed: object) -> Callable[[dict], None]:
    def edit(members: dict) -> None:
        envelope = {**json.loads(base64.b64decode(members["envelope"])), **changed}
        members["envelope"] = base64.b64encode(json.dumps(envelope, separators=(",", ":"), sort_keys=True).encode()).decode()

    return edit


def content(**changed: object) -> Callable[[dict], None]:
    return lambda members: members["content"].update(changed)


def test_what_is_exported_verifies() -> None:
    assert (Verified(5, 2, 0), []) == check(b"".join(lines()))


def test_a_bundle_made_from_the_published_vectors_verifies() -> None:
    entries = [
        {
            "envelope": base64.b64encode(vector["envelope"].encode()).decode(),
            "hash": vector["hash"],
            "content": {
                "attributes": base64.b64encode(vector["attributes"].encode()).decode(),
                "salt": vector["salt"],
                "body": vector["body_base64"],
            },
        }
        for vector in VECTORS
    ]
    raw = header_line("acme", NOW) + b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)

    assert (Verified(3, 1, 0), []) == check(raw)


def test_a_bundle_of_the_first_version_is_read_and_holds_entries_only() -> None:
    raw = b"".join(lines()).replace(b"waxseal/bundle/v2", b"waxseal/bundle/v1")

    assert (Verified(5, 2, 0), []) == check(raw)
    assert ["checkpoint"] == kinds(raw + b'{"checkpoint":"log"}\n')


@pytest.mark.parametrize(
    "changed", [{"more": 1}, {"exported_at": "yesterday"}, {"exported_at": None}, {"exported_at": "2026-01-01T00:00:00"}]
)
def test_a_first_line_with_another_member_or_a_bad_time_is_refused(changed) -> None:
    first = json.dumps({**json.loads(lines()[0]), **changed}).encode() + b"\n"

    with pytest.raises(Unreadable):
        check(first + b"".join(lines()[1:]))


@pytest.mark.parametrize("changed", [{"id": ""}, {"specversion": "0.3"}, {"time": "noon"}, {"time": "2026-02-30T00:00:00Z"}])
def test_attributes_that_no_event_has_are_refused(changed) -> None:
    assert ["attributes"] == kinds(b"".join(lines(stored(1, "order-1", 1, **changed))))
    assert ["attributes"] == kinds(b"".join(lines(stored(1, "", 1))))


def test_line_ends_do_not_matter() -> None:
    raw = b"".join(lines())

    assert "intact" == check(raw.removesuffix(b"\n"))[0].verdict
    assert "intact" == check(raw.replace(b"\n", b"\r\n"))[0].verdict


def test_a_blank_line_is_a_fault_and_counts_as_a_line() -> None:
    all_lines = lines()
    altered = edited(3, content(body=5)).splitlines(keepends=True)
    raw = b"".join([*all_lines[:2], b"\n", b" \r\n", *altered[2:], b"\n"])

    numbers = ["line 3: it is blank", "line 4: it is blank", "line 6: body is not base64", "line 9: it is blank"]
    faults = check(raw)[1]

    assert ["line"] * 4 == [fault.kind for fault in faults]
    assert numbers == [fault.detail.partition(",")[0] for fault in faults]


@pytest.mark.parametrize(
    ("expected", "raw"),
    {
        "a body": (["content_altered"], edited(2, content(body=base64.b64encode(b"changed").decode()))),
        "a salt": (["content_altered"], edited(2, content(salt="ff" * 32))),
        "attributes": (["content_altered", "attributes"], edited(2, content(attributes=base64.b64encode(b"{}").decode()))),
        "a hash": (["hash"], edited(2, lambda members: members.update(hash="0" * 64))),
        "a hash in capitals": (["hash"], edited(2, lambda members: members.update(hash=members["hash"].upper()))),
        "a hash that is no text": (["hash"], edited(2, lambda members: members.update(hash=None))),
        "content gone": (["content_missing"], edited(2, lambda members: members.update(content=None))),
        "an envelope's time": (["hash", "link"], edited(2, reenvelope(at=99))),
        "the last envelope's time": (["hash"], edited(3, reenvelope(at=99))),
        "an envelope's tenant": (["column", "hash", "link"], edited(2, reenvelope(tenant="other"))),
        "an envelope's version": (["envelope", "link"], edited(2, reenvelope(v="waxseal/event/v9"))),
        "an envelope's commitment": (["hash", "content_altered", "link"], edited(2, reenvelope(pc="0" * 64))),
        "an envelope's number": (["gap", "hash", "gap"], edited(2, reenvelope(seq=7))),
        "a member more": (["line", "gap"], edited(2, lambda members: members.update(more=1))),
        "a member of the content less": (["line", "gap"], edited(2, lambda members: members["content"].pop("salt"))),
        "a salt in capitals": (["line"], edited(2, lambda members: members["content"].update(salt="AB" * 32))),
        "base64 with a space": (["line"], edited(2, lambda members: members["content"].update(body=" Zm9v"))),
        "a body that is no text": (["line"], edited(2, content(body=5))),
        "an envelope that is no base64": (["line", "gap"], edited(2, lambda members: members.update(envelope="?"))),
    }.values(),
)
def test_every_change_is_named(expected, raw) -> None:
    assert expected == kinds(raw)


def test_a_changed_line_with_a_matching_hash_is_revealed_by_the_next() -> None:
    def rehash(members: dict) -> None:
        reenvelope(at=99)(members)
        from pipeline.chain import entry_hash

        members["hash"] = entry_hash(base64.b64decode(members["envelope"])).hex()

    assert ["link"] == kinds(edited(2, rehash))


@pytest.mark.parametrize(
    ("expected", "order"),
    [
        (set(), [0, 1, 2, 3]),
        ({"gap"}, [0, 1, 3]),
        ({"gap"}, [0, 2, 3]),
        ({"gap"}, [0, 2, 1, 3]),
        ({"repeated"}, [0, 1, 2, 2, 3]),
        ({"repeated"}, [0, 1, 2, 3, 4, 5, 1, 2, 3]),
        ({"repeated", "gap"}, [0, 1, 2, 4, 5, 3]),
    ],
)
def test_lines_that_are_missing_repeated_or_out_of_order_are_named(expected, order) -> None:
    assert expected == set(kinds(b"".join(lines()[n] for n in order)))


def test_a_fault_says_where_it_is() -> None:
    fault = check(edited(2, content(salt="ff" * 32)))[1][0]

    assert ("acme", "order-1", UUID(int=1).hex, 1, "content_altered") == (
        fault.tenant,
        fault.subject,
        fault.chain,
        fault.seq,
        fault.kind,
    )


def test_a_fault_is_short_however_long_the_texts_are_that_it_names() -> None:
    long = "x" * 100_000
    raw = [header_line(long, NOW), *lines(stored(1, long, 2))[1:], *lines(stored(1, long + "y", 1))[1:]]
    fork = [entry for n in range(1000) for entry in lines(stored(1, f"s-{n}", 2))[2:]]
    altered = edited(2, reenvelope(tenant=long))

    faults = [*check(b"".join(raw), KEYED)[1], *check(b"".join([*lines()[:2], *fork, lines()[3]]))[1], *check(altered)[1]]

    assert {"column", "subject", "link", "repeated", "checkpoint"} <= {fault.kind for fault in faults}
    assert max(len(fault.detail) for fault in faults) < 1000
    assert {2048} == {len(text) for fault in faults for text in (fault.tenant, fault.subject) if text and len(text) > 100}


def test_entries_about_two_subjects_are_not_one_chain() -> None:
    one, other = stored(1, "order-1", 2), stored(1, "order-2", 2)
    raw = b"".join(lines([one[0], other[1]]))

    assert {"link", "subject"} == set(kinds(raw))


def test_nothing_to_check_is_not_intact() -> None:
    assert "nothing" == check(b"")[0].verdict
    assert "nothing" == check(lines([])[0])[0].verdict


def test_a_key_without_a_checkpoint_is_a_fault() -> None:
    verified, faults = check(b"".join(lines()), KEYED)

    assert ("broken", ["checkpoint"]) == (verified.verdict, [fault.kind for fault in faults])


def test_a_checkpoint_that_cannot_be_verified_yet_is_not_taken_on_trust() -> None:
    assert ["checkpoint"] == kinds(b"".join(lines()) + b'{"checkpoint":"log\\n5\\n"}\n')


@pytest.mark.parametrize(
    "first", [b"{}\n", b"[]\n", b"\n", b"\xff\n", b'{"v":"waxseal/bundle/v3","tenant":"a"}\n', b"[" * 9999]
)
def test_what_is_no_bundle_is_unreadable(first) -> None:
    with pytest.raises(Unreadable):
        check(first + b"".join(lines()[1:]))


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"null",
        b"5",
        b'"text"',
        b"\xff\xfe",
        b"\x00",
        b"[" * 100_000,
        b'{"a":' * 5000,
        b"[" * 300 + b"]" * 300,
        b'{"checkpoint":' + b'{"a":' * 900 + b"1" + b"}" * 901,
        b'{"envelope":"","envelope":"","hash":"","content":null}',
        b'{"envelope":{},"hash":[],"content":[]}',
        b'{"envelope":"","hash":"","content":{"attributes":null,"salt":null,"body":null}}',
        b'{"envelope":"\xc3\xa9","hash":"","content":null}',
        b'{"envelope":1e999,"hash":"","content":null}',
    ],
    ids=lambda line: repr(line[:20]),
)
def test_a_hostile_line_is_a_fault_and_nothing_worse(line) -> None:
    verified, faults = check(b"".join(lines()) + line + b"\n")

    assert "broken" == verified.verdict
    assert {fault.kind for fault in faults} <= {"line", "envelope"}


def test_json_that_takes_far_more_memory_than_its_bytes_is_not_parsed() -> None:
    bomb = b"[" + b"[]," * (1024 * 1024) + b"0]"
    encoded = base64.b64encode(bomb).decode()
    bombs = [
        b"".join(lines()) + bomb + b"\n",
        edited(2, lambda members: members.update(envelope=encoded)),
        edited(2, content(attributes=encoded)),
    ]

    for raw in bombs:
        assert [fault.kind for fault in check(raw)[1] if "too many values" in fault.detail]


def test_a_line_without_end_is_skipped_in_bounded_memory(monkeypatch) -> None:
    monkeypatch.setattr(bundle_lines, "MAX_LINE", 2000)
    raw = lines()

    assert ["line"] == kinds(b"".join([*raw[:4], b"x" * 50_000 + b"\n", *raw[4:]]))
    assert ["line"] == kinds(b"".join(raw) + b"x" * 50_000)


WHOLE = b"".join(lines())
SMALL = b"".join(lines(stored(1, "order-1", 2)))  # an entry, and one that links to it


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80], ids=["to its neighbour", "its case", "out of ASCII"])
def test_no_byte_of_an_entry_can_be_changed_unseen(flip) -> None:
    """Changes every byte in turn, except the line end of the last line."""
    unseen = []
    for position in range(len(lines()[0]), len(SMALL) - 1):
        raw = bytearray(SMALL)
        raw[position] ^= flip
        if check(bytes(raw))[0].verdict == "intact":
            unseen.append((position, SMALL[position : position + 1]))

    assert [] == unseen


@given(st.binary(max_size=200))
def test_garbage_is_unreadable_or_broken_and_never_anything_else(garbage) -> None:
    try:
        verified, _ = check(garbage)
    except Unreadable:
        return
    assert "intact" != verified.verdict


def test_verifying_needs_neither_a_database_nor_its_driver(tmp_path) -> None:
    file = tmp_path / "bundle.jsonl"
    file.write_bytes(WHOLE)
    program = (
        "import sys\nfrom ops.cli import main\n"
        "try:\n    main(['verify-bundle', sys.argv[1]])\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
        "    assert not {'sqlalchemy', 'psycopg', 'pika'} & set(sys.modules), 'a driver was imported'\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", program, str(file)], capture_output=True, text=True, env={"PATH": ""}, check=False, timeout=30
    )

    assert (0, "") == (ended.returncode, "" if ended.returncode == 0 else ended.stderr)
    assert "intact: 5 entries in 2 chains" in ended.stdout


@pytest.mark.parametrize(
    ("code", "told", "raw"),
    [
        (0, "intact: 5 entries in 2 chains", WHOLE),
        (1, "NOT intact", edited(2, content(salt="ff" * 32))),
        (1, "nothing to check", b""),
        (2, "not a Waxseal bundle", b"hello\n"),
    ],
)
def test_the_exit_code_tells(code, told, raw, tmp_path) -> None:
    from click.testing import CliRunner

    from ops.cli import main

    file = tmp_path / "bundle.jsonl"
    file.write_bytes(raw)
    ended = CliRunner().invoke(main, ["verify-bundle", str(file)])

    assert code == ended.exit_code
    assert told in ended.output


def test_as_json_every_fault_is_a_line_and_the_last_line_sums_up(tmp_path) -> None:
    from click.testing import CliRunner

    from ops.cli import main

    file = tmp_path / "bundle.jsonl"
    file.write_bytes(edited(2, content(salt="ff" * 32)))
    ended = CliRunner().invoke(main, ["verify-bundle", str(file), "--json"])
    told = [json.loads(line) for line in ended.stdout.splitlines()]

    assert 1 == ended.exit_code
    assert ["content_altered"] == [line["kind"] for line in told[:-1]]
    assert ["sealed", "complete"] == [each["claim"] for each in told[-1].pop("not_shown")]
    counts = {"entries": 5, "chains": 2, "faults": 1}
    assert {"verdict": "broken", **counts, "checkpoint": None, "not_sealed": [], "shown": [], "not_checked": []} == told[-1]
