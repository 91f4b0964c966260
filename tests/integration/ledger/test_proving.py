"""Proofs from a tenant's published log, by command, and exports that carry them."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from click.testing import Result

from ops.admin import bundle_export
from ops.runtime.db import make_engine, transaction
from ops.runtime.places import Place
from ops.runtime.published_log import PublishedLog
from pipeline.chain import extend
from pipeline.ledger.checkpoint import open_checkpoint
from pipeline.ledger.heads import Gathered, Member
from pipeline.ledger.merkle import check_consistency, check_inclusion, leaf_hash, root_of
from pipeline.ledger.notes import ED25519, Key
from pipeline.ledger.tlog_proof import read_consistency_proof, read_inclusion_proof
from pipeline.store.log import checkpoints
from schemas.entry import Head
from schemas.event import Event
from support.cli import Cli
from support.ledger.events import event_of, record
from support.ledger.growing import add_log, position
from workers.sealer.board import Board
from workers.sealer.sealing import Sealing

KEY = b"k" * 32
BASE = "ledger.example"
SUBJECTS = ("order-1", "order-2", "order-3")


def event(id_: str, subject: str, **changed: str) -> Event:
    return event_of(KEY, "acme", subject, id_, f"body of {id_}".encode(), **{"datacontenttype": "text/plain", **changed})


@dataclass
class Sealed:
    """A ledger of nine entries of three subjects and a heads entry; checkpoints at 1, 4, 9, 10; two entries that wait."""

    database: Any
    cli: Cli
    folder: Path
    key: Key

    def run(self, *arguments: object) -> Result:
        return self.cli.run(*arguments)

    def leaf(self, subject: str, seq: int) -> tuple[bytes, int]:
        ((hashed, at),) = self.database.rows(
            "SELECT entry.hash, position FROM entry JOIN chain USING (chain_id) "
            "JOIN leaf ON leaf.chain_id = entry.chain_id AND leaf.seq = entry.seq WHERE subject = %s AND entry.seq = %s",
            subject,
            seq,
        )
        return bytes(hashed), at


@pytest.fixture(scope="module")
def sealed(shared_database, servers, tmp_path_factory) -> Iterator[Sealed]:
    database, folder = shared_database, tmp_path_factory.mktemp("published")
    database.add_tenant("acme")
    log_id = add_log(database)
    engine, writer = make_engine(database.sealer_url, pool_size=2), make_engine(database.url, pool_size=1)
    sealing = Sealing(engine, Place(str(folder)), BASE, database.vault, Board())

    def seal() -> None:
        place_all(database, log_id)
        with transaction(engine) as conn:
            log = checkpoints.open_log(conn, "acme")
        assert log is not None
        sealing.seal(log)

    numbers = iter(range(100))
    for count in (1, 3, 5):
        for _ in range(count):
            number = next(numbers)
            record(writer, event(f"e-{number}", SUBJECTS[number % 3]))
        seal()
    state_heads(database, log_id)
    seal()
    record(writer, event("late", "order-1"))
    record(writer, event("new", "order-4"))
    ((public,),) = database.rows("SELECT public FROM log_key")
    cli = Cli(database, log_files=folder, log_origin=BASE, blobs=folder / "blobs")
    yield Sealed(database, cli, folder, Key(f"{BASE}/acme", ED25519, bytes(public)))
    engine.dispose()
    writer.dispose()


def place_all(database: Any, log_id: int) -> None:
    rows = database.rows(
        "SELECT chain_id, seq, hash FROM entry WHERE NOT EXISTS "
        "(SELECT FROM leaf WHERE leaf.chain_id = entry.chain_id AND leaf.seq = entry.seq) ORDER BY seq, chain_id"
    )
    ((size, packed),) = database.rows("SELECT size, frontier FROM log")
    position(database, log_id, [row[:2] for row in rows], [bytes(row[2]) for row in rows], size, packed)


def state_heads(database: Any, log_id: int) -> None:
    """An entry of kind "heads" over the log as it is."""
    last = database.rows(
        "SELECT DISTINCT ON (chain_id) chain_id, seq, hash FROM entry ORDER BY chain_id, seq DESC",
    )
    gathered = Gathered()
    gathered.add(Member(chain, seq, bytes(hashed)) for chain, seq, hashed in last)
    ((size,),) = database.rows("SELECT size FROM log WHERE id = %s", log_id)
    about = event("heads", "waxseal.heads", source="waxseal", type="waxseal.heads", datacontenttype="application/json")
    about = Event("acme", about.attributes, gathered.heads(size).body, about.fingerprint, about.chain_key)
    entry = extend(Head(uuid4(), -1, None), about, 1_767_225_600_000_000, b"s" * 32, "heads")
    keyed = UUID(bytes=about.chain_key)
    database.run(
        "WITH made AS (INSERT INTO entry (chain_id, seq, hash, tenant, at, kind, pc, fingerprint) "
        "VALUES (%s, 0, %s, 'acme', %s, 'heads', %s, %s)), "
        "known AS (INSERT INTO chain (key, tenant, subject, chain_id, seq, hash) "
        "VALUES (%s, 'acme', 'waxseal.heads', %s, 0, %s)) "
        "INSERT INTO content (chain_id, seq, attributes, body, salt, source, type, subject, time) "
        "VALUES (%s, 0, %s, %s, %s, 'waxseal', 'waxseal.heads', 'waxseal.heads', '2026-01-01T00:00:00Z')",
        *(entry.chain_id, entry.hash, entry.at, entry.pc, UUID(bytes=about.fingerprint)),
        *(keyed, entry.chain_id, entry.hash),
        *(entry.chain_id, entry.attributes, about.body, entry.salt),
    )


def test_an_entry_is_proven_to_be_in_the_published_log(sealed) -> None:
    for asked, subject, seq in (([], "order-2", 2), (["--seq", 0], "order-1", 0), (["--seq", 2], "order-3", 2)):
        ended = sealed.run("prove", "acme", subject, *asked)
        proof = read_inclusion_proof(ended.stdout)
        checkpoint, names = open_checkpoint(proof.checkpoint, [sealed.key])
        hashed, at = sealed.leaf(subject, seq)

        assert (0, at, hashed, (f"{BASE}/acme",)) == (ended.exit_code, proof.index, leaf_hash(proof.extra), names)
        check_inclusion(leaf_hash(proof.extra), proof.index, checkpoint.size, proof.hashes, checkpoint.root)


def test_a_proof_is_written_to_a_file(sealed, tmp_path) -> None:
    assert 0 == sealed.run("prove", "acme", "order-1", "-o", tmp_path / "proof").exit_code
    assert 10 == open_checkpoint(read_inclusion_proof((tmp_path / "proof").read_bytes()).checkpoint, [sealed.key])[0].size


def test_a_subject_s_end_is_proven_by_the_heads(sealed) -> None:
    ended = sealed.run("prove", "acme", "order-1", "--complete")
    proof = read_inclusion_proof(ended.stdout)
    heads = json.loads(proof.extra)["heads"]
    envelope = base64.b64decode(heads["entry"]["envelope"])
    checkpoint, _ = open_checkpoint(proof.checkpoint, [sealed.key])

    check_inclusion(leaf_hash(envelope), proof.index, checkpoint.size, proof.hashes, checkpoint.root)
    body, (member,) = json.loads(base64.b64decode(heads["entry"]["content"]["body"])), heads["members"]
    leaf = bytes.fromhex(member["chain"]) + member["seq"].to_bytes(8, "big") + bytes.fromhex(member["hash"])
    proven = [base64.b64decode(each) for each in member["proof"]]
    check_inclusion(leaf_hash(leaf), member["index"], body["count"], proven, bytes.fromhex(body["root"]))
    assert (9, 3, 2, sealed.leaf("order-1", 2)[0].hex()) == (body["size"], body["count"], member["seq"], member["hash"])


def test_a_log_is_proven_to_continue_an_older_one(sealed) -> None:
    leaves = [
        bytes(each)
        for (each,) in sealed.database.rows("SELECT hash FROM entry JOIN leaf USING (chain_id, seq) ORDER BY position")
    ]
    for old, new in ((1, 10), (4, 9), (7, 10), (10, 10)):
        proof = read_consistency_proof(sealed.run("prove", "acme", "--consistency", old, new).stdout)
        checkpoint, _ = open_checkpoint(proof.checkpoint, [sealed.key])

        check_consistency(proof.old, checkpoint.size, root_of(leaves[:old]), checkpoint.root, proof.hashes)
        assert (old, new) == (proof.old, checkpoint.size)


@pytest.mark.parametrize(
    ("code", "told", "asked"),
    [
        (1, "entry 3 is not in the published log yet, which has 10 leaves", ["acme", "order-1", "--seq", 3]),
        (1, "no entry of it is in the published log yet", ["acme", "order-4"]),
        (1, "older than this", ["acme", "order-4", "--complete"]),
        (1, "has 10 leaves, not 11", ["acme", "--consistency", 4, 11]),
        (2, "no checkpoint was signed at 8 leaves, but at 4, 9, 10", ["acme", "--consistency", 4, 8]),
        (2, "the smaller one first", ["acme", "--consistency", 10, 9]),
        (2, "nothing is recorded of 'order-9'", ["acme", "order-9"]),
        (2, "there is no tenant 'nobody'", ["nobody", "order-1"]),
        (2, "give SUBJECT", ["acme"]),
        (2, "give SUBJECT", ["acme", "order-1", "--consistency", 4, 9]),
        (2, "give SUBJECT", ["acme", "--complete"]),
        (2, "give SUBJECT", ["acme", "order-1", "--complete", "--seq", 1]),
        (2, "give SUBJECT", ["acme", "--consistency", 4, 9, "--complete"]),
    ],
)
def test_what_cannot_be_proven_is_said(sealed, code, told, asked) -> None:
    ended = sealed.run("prove", *asked)

    assert (code, True, "") == (ended.exit_code, told in ended.stderr, ended.stdout), ended.stderr


def test_without_a_published_log_there_is_no_proof_yet(sealed, tmp_path) -> None:
    for where in ("", tmp_path / "elsewhere"):
        ended = sealed.cli.but(log_files=where).run("prove", "acme", "order-1")
        assert (1, True) == (ended.exit_code, "not published yet" in ended.stderr), ended.stderr
        assert 0 == sealed.cli.but(log_files=where).run("export", "acme", "-o", tmp_path / "bundle").exit_code
        assert b"checkpoint" not in (tmp_path / "bundle").read_bytes()


def test_tiles_that_were_altered_make_no_proof(sealed, tmp_path) -> None:
    files = PublishedLog(Place(str(sealed.folder)), "acme", 1)
    tile = files.read("tile/0/000.p/10")
    try:
        Place(str(sealed.folder)).write({"acme/tile/0/000.p/10": bytes(32) + tile[32:]})
        for asked in (["order-1"], ["order-1", "--complete"], ["--consistency", 4, 10]):
            ended = sealed.run("prove", "acme", *asked)
            assert (2, True) == (ended.exit_code, "does not hold" in ended.stderr or "`waxseal verify`" in ended.stderr), (
                ended.stderr
            )
    finally:
        Place(str(sealed.folder)).write({"acme/tile/0/000.p/10": tile})


def test_an_export_carries_proofs_and_verifies_with_every_older_checkpoint(sealed, tmp_path) -> None:
    bundle, old = tmp_path / "bundle", tmp_path / "old"
    assert 0 == sealed.run("export", "acme", "-o", bundle).exit_code

    for size in (1, 4, 9, 10):
        ((note,),) = sealed.database.rows("SELECT note FROM checkpoint WHERE size = %s", size)
        old.write_text(note)
        ended = sealed.run("verify-bundle", bundle, "--vkey", sealed.key.vkey, "--checkpoint", old)

        assert (0, True) == (ended.exit_code, "shown: consistent" in ended.stdout), ended.output
    assert "shown: complete: of 3 chains, these are all entries" not in ended.stdout
    assert "these are all entries among the log's first 9 leaves: no chain is left out" in ended.stdout
    assert "not yet sealed: order-1 entry 3" in ended.stdout
    assert "not yet sealed: order-4 entry 0" in ended.stdout


def test_an_export_of_many_chains_carries_the_same_proofs(sealed, tmp_path, monkeypatch) -> None:
    few, many = tmp_path / "few", tmp_path / "many"
    assert 0 == sealed.run("export", "acme", "-o", few).exit_code
    monkeypatch.setattr(bundle_export, "ONE_BY_ONE", 0)
    assert 0 == sealed.run("export", "acme", "-o", many).exit_code

    assert few.read_bytes().splitlines()[1:] == many.read_bytes().splitlines()[1:]


def test_an_export_of_one_subject_is_complete_and_needs_a_proof_for_an_older_checkpoint(sealed, tmp_path) -> None:
    bundle, old, proof = tmp_path / "bundle", tmp_path / "old", tmp_path / "proof"
    assert 0 == sealed.run("export", "acme", "--subject", "order-2", "-o", bundle).exit_code
    ((note,),) = sealed.database.rows("SELECT note FROM checkpoint WHERE size = 1")
    old.write_text(note)
    assert 0 == sealed.run("prove", "acme", "--consistency", 1, 10, "-o", proof).exit_code
    check = ["verify-bundle", bundle, "--vkey", sealed.key.vkey, "--checkpoint", old]

    assert 1 == sealed.run(*check).exit_code
    ended = sealed.run(*check, "--consistency", proof)
    assert (0, True) == (ended.exit_code, "shown: complete: of 1 chains" in ended.stdout)


READING = {
    "prove": ("prove", "acme", "order-2"),
    "prove --complete": ("prove", "acme", "order-2", "--complete"),
    "prove --consistency": ("prove", "acme", "--consistency", 1, 10),
    "export": ("export", "acme", "-o", "bundle"),
    "export --subject": ("export", "acme", "--subject", "order-2", "-o", "bundle"),
    "log status": ("log", "status", "--json"),
    "timeline": ("timeline", "acme", "order-1", "--json"),
    "verify": ("verify", "--json"),
}


@pytest.mark.parametrize("command", READING)
def test_the_logins_of_workers_and_readers_are_told_what_the_owner_is(sealed, tmp_path, monkeypatch, command: str) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = tmp_path / "bundle"
    answers, complained = [], []
    for url in (sealed.database.url, sealed.database.worker_url, sealed.database.reader_url):
        ended = sealed.cli.but(database_url=url).run(*READING[command])
        bundled = bundle.read_bytes().splitlines()[1:] if bundle.exists() else []
        answers.append((ended.exit_code, ended.stdout, bundled))
        complained.append(ended.stderr)
        bundle.unlink(missing_ok=True)

    owner, worker, reader = answers
    assert owner == worker
    assert owner == reader
    assert "prove" not in command or owner[0] == 0
    assert "export" not in command or owner[2]
    if command == "verify":  # what was found, and is claimed of a ledger, its writers and readers may not record
        assert [False, True, True] == ["may not record it" in each for each in complained]
    else:
        assert 1 == len(set(complained))


def test_an_export_that_lacks_something_says_so_and_ends_with_1(sealed, tmp_path) -> None:
    database, bundle = sealed.database, tmp_path / "bundle"
    chain = database.rows("SELECT chain_id FROM chain WHERE subject = 'order-3'")[0][0]
    database.run("DELETE FROM content WHERE chain_id = %s AND seq = 1", chain)
    ended = sealed.run("export", "acme", "-o", bundle)
    assert (1, True) == (ended.exit_code, "missing: 'order-3' entry 1: its content is gone" in ended.stderr), ended.output
    assert 1 == sealed.run("verify-bundle", bundle).exit_code

    database.run("UPDATE chain SET seq = 7, hash = 'x' WHERE subject = 'order-2'")
    ended = sealed.run("export", "acme", "--subject", "order-2", "-o", bundle)
    assert (1, True) == (ended.exit_code, "its chain ends at entry 7, its entries at 2" in ended.stderr), ended.output
