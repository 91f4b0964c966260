"""What leaves no contradiction in the chains contradicts the tenant's log, or what was verified once before."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, make_url, text

from ops.admin.doctor.claim_checks import check_claims
from ops.admin.verifying import tenant_claims
from ops.admin.verifying.anchor_receipts import AnchorReceipts
from ops.admin.verifying.tenant_claims import claims_of
from ops.errors import PlaceAway
from ops.runtime.db import make_engine, transaction
from ops.runtime.places import Patience, Place
from ops.settings import Settings
from pipeline.append import append
from pipeline.chain import extend
from pipeline.dedupe import chain_key, identity
from pipeline.ledger.checkpoint import Checkpoint
from pipeline.ledger.cosignature import cosign
from pipeline.ledger.merkle import Frontier
from pipeline.ledger.merkle import extend as grown
from pipeline.ledger.notes import Signer, new_private, sign
from pipeline.ledger.verify_log import verify_logs
from pipeline.ledger.verifying.verify import verify, verify_new
from pipeline.store.admin import verifications
from pipeline.store.ledger import ledger_claims, points
from pipeline.store.ledger.scan import Scope
from pipeline.store.log.checkpoints import OpenLog
from schemas.entry import Head
from schemas.event import Event
from schemas.ledger.assurance import Claim, Word
from schemas.ledger.fault import Fault, Verified
from support.blobs import NO_BLOBS
from support.cli import Cli
from support.ledger.events import NOW, event_of
from support.ledger.tampering import REHASHED, UNPROTECTED, of, run
from support.net.tsa import Authority, time_stamping
from support.net.witness import Witness, served
from support.waiting import wait_for
from workers.sealer.anchor import Known
from workers.sealer.time_stamps import TimeStamps

KEYS = {"acme": b"k" * 32, "other": b"o" * 32}
SIGNERS = {tenant: Signer(f"ledger.example/{tenant}", new_private()) for tenant in KEYS}
LOGS = ("leaf", "log", "checkpoint", "log_pending", "log_key", "anchor")
OPEN = "DROP INDEX log_open; " + "; ".join(f"ALTER TABLE {table} DISABLE TRIGGER ALL" for table in LOGS)
LOOSE = (
    OPEN
    + """;
    DO $$ DECLARE found record; BEGIN
      FOR found IN SELECT conrelid::regclass AS owner, conname FROM pg_constraint WHERE contype <> 'n' AND conrelid = ANY(ARRAY[
          'leaf'::regclass, 'log'::regclass, 'checkpoint'::regclass, 'log_pending'::regclass, 'anchor'::regclass,
          'log_key'::regclass])
          ORDER BY contype = 'f' DESC LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I CASCADE', found.owner, found.conname);
      END LOOP;
    END $$"""
)


def event(tenant: str, subject: str, id_: str, **others: str) -> Event:
    return event_of(KEYS[tenant], tenant, subject, id_, **others)


@dataclass
class Ledger:
    """Two tenants with logs: every entry but the last one of each has a position, and a signed checkpoint covers those."""

    engine: Engine

    def kinds(self, *edits: str | Callable[[Connection], None], scope: Scope = Scope()) -> set[str]:  # noqa: B008
        return {fault.kind for fault in self.faults(*edits, scope=scope)}

    def faults(self, *edits: str | Callable[[Connection], None], scope: Scope = Scope()) -> list[Fault]:  # noqa: B008
        faults: list[Fault] = []
        with self.engine.connect() as conn:
            run(conn, UNPROTECTED)
            run(conn, LOOSE)
            for edit in edits:
                if callable(edit):
                    edit(conn)
                else:
                    assert run(conn, edit), f"nothing was changed by: {edit}"
            verify(conn, scope, KEYS, NO_BLOBS.get, faults.append)
            verify_logs(conn, replace(scope, part=None), faults.append)
            conn.rollback()
        return faults


def position(conn: Connection, tenant: str, signer: Signer) -> None:
    """Gives the waiting entries positions, as the sequencer does, and seals them."""
    rows = conn.execute(
        text("SELECT chain_id, seq, hash FROM entry WHERE tenant = :t ORDER BY seq, chain_id"), {"t": tenant}
    ).all()
    log = conn.execute(text("INSERT INTO log (tenant) VALUES (:t) RETURNING id"), {"t": tenant}).scalar_one()
    conn.execute(
        text("INSERT INTO leaf SELECT :log, n - 1, c, s FROM unnest(:cs, :ss) WITH ORDINALITY AS each (c, s, n)"),
        {"log": log, "cs": [row.chain_id for row in rows], "ss": [row.seq for row in rows]},
    )
    frontier = grown(Frontier(0, ()), [bytes(row.hash) for row in rows])
    told = {
        "log": log,
        "size": len(rows),
        "frontier": b"".join(frontier.hashes),
        "root": frontier.root(),
        "key": signer.key.public,
    }
    conn.execute(text("UPDATE log SET size = :size, frontier = :frontier WHERE id = :log"), told)
    note = sign(Checkpoint(signer.name, len(rows), frontier.root()).text, [signer])
    conn.execute(text("INSERT INTO log_key (log_id, public) VALUES (:log, :key)"), told)
    conn.execute(
        text("INSERT INTO checkpoint (log_id, size, root, note, signed_at) VALUES (:log, :size, :root, :note, now())"),
        {**told, "note": note},
    )
    published = "INSERT INTO anchor (log_id, size, kind, place, at) VALUES (:log, :size, 'published', 'files', now())"
    conn.execute(text(published), told)
    conn.execute(text("DELETE FROM log_pending WHERE tenant = :t"), {"t": tenant})


@pytest.fixture(scope="module")
def ledger(shared_database) -> Iterator[Ledger]:
    with shared_database.connect() as conn:
        for tenant, key in KEYS.items():
            encrypted = shared_database.vault.encrypt(key)
            conn.execute("INSERT INTO tenant (name, fingerprint_key) VALUES (%s, %s)", (tenant, encrypted))
    engine = make_engine(shared_database.url)
    with transaction(engine) as conn:
        for tenant, subject in (("acme", "order-1"), ("acme", "order-2"), ("other", "order-1")):
            append(conn, [event(tenant, subject, f"{subject}-{n}") for n in range(4)], {}, NOW)
    with transaction(engine) as conn:
        for tenant in KEYS:
            position(conn, tenant, SIGNERS[tenant])
    with transaction(engine) as conn:
        for tenant in KEYS:
            append(conn, [event(tenant, "order-1", "order-1-4")], {}, NOW)
    yield Ledger(engine)
    engine.dispose()


def test_a_sealed_ledger_that_nobody_touched_is_intact(ledger) -> None:
    assert [] == ledger.faults()
    assert [] == ledger.faults(scope=Scope("acme"))


CUT = [f"DELETE FROM {table} WHERE {of(seq=None)} AND seq >= {{0}}" for table in ("entry", "content")]
BACK = (
    "UPDATE chain SET (seq, hash) ="
    " (SELECT seq, hash FROM entry WHERE entry.chain_id = chain.chain_id ORDER BY seq DESC LIMIT 1)"
    " WHERE tenant = 'acme' AND subject = 'order-1'"
)
GONE = [f"DELETE FROM {table} WHERE {of(seq=None)}" for table in ("entry", "content", "chain")]


def rehash(conn: Connection) -> None:
    """Gives every entry of the chain the right link and hash, one after the other, and moves the head."""
    for seq in conn.execute(text(f"SELECT seq FROM entry WHERE {of(seq=None)} ORDER BY seq")).scalars().all():
        before = f"(SELECT hash FROM entry AS before WHERE before.chain_id = entry.chain_id AND before.seq = {seq} - 1)"
        run(conn, f"UPDATE entry SET prev_hash = {before} WHERE {of(seq=seq)}")
        run(conn, f"UPDATE entry SET hash = {REHASHED} WHERE {of(seq=seq)}")
    run(conn, BACK)


RENUMBERED = [
    *(f"DELETE FROM {table} WHERE {of(seq=1)}" for table in ("entry", "content")),
    *(f"UPDATE {table} SET seq = seq - 1 WHERE {of(seq=None)} AND seq > 1" for table in ("entry", "content")),
]


@pytest.mark.parametrize(
    ("expected", "edits"),
    [
        ({"log_entry"}, [CUT[0].format(4), CUT[1].format(4), BACK]),
        ({"log_entry"}, [CUT[0].format(2), CUT[1].format(2), BACK]),
        ({"log_entry"}, GONE),
        ({"log_root"}, [f"UPDATE entry SET at = at + 1 WHERE {of(seq=None)}", rehash]),
        ({"log_root"}, [f"UPDATE entry SET at = at + 1 WHERE {of(seq=None)} AND seq >= 2", rehash]),
        ({"log_entry"}, [*RENUMBERED, rehash]),
        ({"column", "log_entry"}, [RENUMBERED[0], RENUMBERED[1], RENUMBERED[2], RENUMBERED[3], BACK]),
    ],
    ids=[
        "a tail that had no position yet is cut, with the head",
        "a tail is cut, with the head",
        "a whole chain, with its row",
        "a chain is written anew with right hashes",
        "a suffix is written anew with right hashes",
        "an entry is cut out, the rest renumbered with right hashes",
        "an entry is cut out, the rest renumbered",
    ],
)
def test_what_leaves_no_contradiction_in_the_chains_contradicts_the_log(ledger, expected, edits) -> None:
    assert expected <= ledger.kinds(*edits)
    if "log_root" not in expected:
        found = ledger.faults(*edits, scope=Scope("acme"))
        assert expected <= {fault.kind for fault in found}
        assert {"acme"} == {fault.tenant for fault in found}


ACME = "(SELECT id FROM log WHERE tenant = 'acme')"
LEAF = f"log_id = {ACME} AND position = 2"
LOG_EDITS: list[tuple[str, str, str, str, set[str]]] = [
    ("leaf", "log_id", f"log_id + 100 WHERE {LEAF}", "", {"log_position", "log_entry", "log_order"}),
    ("leaf", "position", f"100 WHERE {LEAF}", "", {"log_position"}),
    ("leaf", "chain_id", f"gen_random_uuid() WHERE {LEAF}", "", {"log_entry", "log_order"}),
    ("leaf", "seq", f"9 WHERE {LEAF}", "", {"log_entry", "log_order"}),
    ("log", "id", "id + 100 WHERE tenant = 'acme'", "", {"log_position", "log_entry"}),
    ("log", "tenant", "'other' WHERE tenant = 'acme'", "", {"log_entry"}),
    ("log", "size", "size - 1 WHERE tenant = 'acme'", "", {"log_position"}),
    ("log", "frontier", "sha256('x') WHERE tenant = 'acme'", "", {"log_root"}),
    ("log", "state", "'closed' WHERE tenant = 'acme'", "", {"log_entry"}),
    ("log", "incarnation", "2 WHERE tenant = 'acme'", "", {"checkpoint"}),
    ("checkpoint", "log_id", f"log_id + 100 WHERE log_id = {ACME}", "", {"checkpoint"}),
    ("checkpoint", "log_id", f"(SELECT id FROM log WHERE tenant = 'other') WHERE log_id = {ACME}", "", {"checkpoint"}),
    ("anchor", "log_id", f"log_id + 100 WHERE log_id = {ACME}", "", {"checkpoint"}),
    ("anchor", "size", f"7 WHERE log_id = {ACME}", "", {"checkpoint"}),
    ("log_key", "log_id", f"log_id + 100 WHERE log_id = {ACME}", "", {"checkpoint"}),
    ("log_key", "log_id", f"(SELECT id FROM log WHERE tenant = 'other') WHERE log_id = {ACME}", "", {"checkpoint"}),
    ("checkpoint", "size", f"size - 1 WHERE log_id = {ACME}", "", {"log_root", "checkpoint"}),
    ("checkpoint", "root", f"sha256('x') WHERE log_id = {ACME}", "", {"log_root", "checkpoint"}),
    ("checkpoint", "note", f"replace(note, E'\\n8\\n', E'\\n9\\n') WHERE log_id = {ACME}", "", {"checkpoint"}),
    ("log_key", "public", f"sha256('x') WHERE log_id = {ACME}", "", {"checkpoint"}),
    ("log_pending", "chain_ids", "ARRAY[gen_random_uuid()] WHERE tenant = 'acme'", "", {"log_entry"}),
    ("log_pending", "firsts", "ARRAY[firsts[1] + 1] WHERE tenant = 'acme'", "", {"log_entry"}),
    ("log_pending", "counts", "ARRAY[counts[1] + 1] WHERE tenant = 'acme'", "", {"log_entry"}),
    ("log_pending", "tenant", "'other' WHERE tenant = 'acme'", "", {"log_entry"}),
]


@pytest.mark.parametrize(
    ("table", "column", "value", "_", "expected"), LOG_EDITS, ids=[" ".join(each[:2]) for each in LOG_EDITS]
)
def test_an_edit_of_a_column_of_the_log_is_named(ledger, table, column, value, _, expected) -> None:
    generated = f"ALTER TABLE {table} ALTER {column} DROP IDENTITY IF EXISTS"
    found = ledger.kinds(lambda conn: run(conn, generated) and None, f"UPDATE {table} SET {column} = {value}")

    assert expected <= found
    assert found <= {"log_position", "log_order", "log_entry", "log_root", "checkpoint"}


def test_a_leaf_that_is_deleted_or_there_twice_is_named(ledger) -> None:
    twice = f"INSERT INTO leaf SELECT log_id, 100, chain_id, seq FROM leaf WHERE {LEAF}"
    swapped = f"UPDATE leaf SET position = CASE position WHEN 0 THEN 2 ELSE 0 END WHERE log_id = {ACME} AND position IN (0, 2)"

    assert {"log_position", "log_entry", "log_order"} <= ledger.kinds(f"DELETE FROM leaf WHERE {LEAF}")
    assert {"log_order"} <= ledger.kinds(twice)
    assert {"log_order", "log_root"} <= ledger.kinds(swapped)


def test_an_entry_that_no_writer_noted_for_the_log_is_named(ledger) -> None:
    (fault,) = ledger.faults("DELETE FROM log_pending WHERE tenant = 'acme'")

    assert ("acme", "order-1", 4, "log_entry") == (fault.tenant, fault.subject, fault.seq, fault.kind)


def test_of_one_subject_the_whole_log_is_checked_and_the_positions_of_its_own_entries_are(ledger) -> None:
    unnoted = "DELETE FROM log_pending WHERE tenant = 'acme'"  # of order-1
    swapped = f"UPDATE leaf SET position = CASE position WHEN 0 THEN 2 ELSE 0 END WHERE log_id = {ACME} AND position IN (0, 2)"
    its_own, anothers = Scope("acme", "order-1"), Scope("acme", "order-2")

    assert {"log_entry"} == ledger.kinds(unnoted, scope=its_own)
    assert set() == ledger.kinds(unnoted, scope=anothers)
    assert "log_root" in ledger.kinds(swapped, scope=anothers)


def test_an_entry_that_the_sequencer_will_never_see_is_not_called_sealed(ledger, tmp_path) -> None:
    """It takes what is above its floors, by id; what `at` says of the entry is not what the entry says itself."""
    with ledger.engine.connect() as conn:
        run(conn, LOOSE)
        run(conn, "ALTER TABLE log_pending ALTER id DROP IDENTITY")
        assert run(conn, "UPDATE log_pending SET id = -id, at = 9007199254740991")
        made = dict(claims_of(conn, Settings(log_files=str(tmp_path)), ()))["acme"]
        conn.rollback()

    assert ("chained", True) == (made.word, "entries that have waited for more than 5 minutes" in made.missing)


# --- Erasure


def erase(conn: Connection, spans: str, *, subject: str = "order-1") -> None:
    """Appends an erasure entry that lists the spans; deletes nothing."""
    row = conn.execute(
        text("SELECT chain_id, seq, hash FROM chain WHERE tenant = 'acme' AND subject = :s"), {"s": subject}
    ).one()
    body = f'{{"by":"ops","reason":"asked","seqs":{spans},"subject":false}}'.encode()
    names = {"id": f"erasure-{row.seq}", "source": "waxseal", "type": "waxseal.erasure", "specversion": "1.0"}
    about = {"subject": row.chain_id.hex, "datacontenttype": "application/json", "time": "2026-01-01T12:00:00Z"}
    erasing = Event("acme", names | about, body, identity(KEYS["acme"], names | about), chain_key(KEYS["acme"], subject))
    entry = extend(Head(UUID(bytes=row.chain_id.bytes), row.seq, bytes(row.hash)), erasing, 1, b"s" * 32, "erasure")
    told = {
        name: getattr(entry, name)
        for name in ("chain_id", "seq", "prev_hash", "hash", "at", "kind", "pc", "attributes", "salt")
    }
    told |= {"fingerprint": erasing.fingerprint.hex(), "body": body, "about": row.chain_id.hex}
    conn.execute(
        text(
            "INSERT INTO entry (chain_id, seq, prev_hash, hash, tenant, at, kind, pc, fingerprint)"
            " VALUES (:chain_id, :seq, :prev_hash, :hash, 'acme', :at, :kind, :pc, CAST(:fingerprint AS uuid))"
        ),
        told,
    )
    conn.execute(
        text(
            "INSERT INTO content (chain_id, seq, attributes, body, salt, source, type, subject, time) VALUES (:chain_id, :seq,"
            " :attributes, :body, :salt, 'waxseal', 'waxseal.erasure', :about, '2026-01-01T12:00:00Z')"
        ),
        told,
    )
    conn.execute(text("UPDATE chain SET seq = :seq, hash = :hash WHERE chain_id = :chain_id"), told)
    conn.execute(
        text(
            "INSERT INTO log_pending (tenant, chain_ids, firsts, counts, entries, at)"
            " VALUES ('acme', ARRAY[:chain_id], ARRAY[:seq], '{1}', 1, 1)"
        ),
        told,
    )


def erased(*spans: tuple[int, int]) -> list[str | Callable[[Connection], None]]:
    listed = "[" + ",".join(f"[{first},{last}]" for first, last in spans) + "]"
    return [
        lambda conn: erase(conn, listed),
        *(f"DELETE FROM content WHERE {of(seq=None)} AND seq BETWEEN {a} AND {b}" for a, b in spans),
    ]


def test_content_that_an_entry_of_its_chain_erased_is_no_fault(ledger) -> None:
    assert [] == ledger.faults(*erased((1, 2)))
    assert [] == ledger.faults(*erased((0, 0), (2, 4)))
    assert [] == ledger.faults(*erased((0, 0)), *erased((1, 3)))


def test_content_that_is_missing_beyond_what_was_erased_is_named(ledger) -> None:
    more = ledger.faults(*erased((1, 1)), f"DELETE FROM content WHERE {of(seq=3)}")
    elsewhere = ledger.faults(*erased((1, 1)), f"DELETE FROM content WHERE {of('order-2', seq=1)}")
    itself = ledger.faults(*erased((1, 1)), f"DELETE FROM content WHERE {of(seq=5)}")

    assert [("order-1", 3, "content_missing")] == [(each.subject, each.seq, each.kind) for each in more]
    assert [("order-2", 1, "content_missing")] == [(each.subject, each.seq, each.kind) for each in elsewhere]
    assert {(1, "content_missing"), (5, "content_missing")} == {(each.seq, each.kind) for each in itself}


def test_content_that_was_erased_and_is_there_is_named(ledger) -> None:
    (fault,) = ledger.faults(lambda conn: erase(conn, "[[2,2]]"))

    assert ("order-1", 2, "content_erased") == (fault.subject, fault.seq, fault.kind)


@pytest.mark.parametrize("spans", ["[[5,5]]", "[[9,12]]", "[[3,1]]", "[[1,2],[2,3]]", '"all"', "[[1]]", "[[1,true]]"])
def test_an_erasure_that_lists_what_it_may_not_is_named(ledger, spans) -> None:
    listed = lambda conn: erase(conn, "[[5,5]]")  # noqa: E731
    assert {"erasure", "content_missing"} == ledger.kinds(*erased((1, 1)), listed, f"DELETE FROM content WHERE {of(seq=5)}")


# --- What can be claimed


def test_the_word_is_the_strongest_that_was_checked_and_what_is_missing_is_said(ledger, shared_database, tmp_path) -> None:
    ((note,),) = shared_database.rows("SELECT note FROM checkpoint JOIN log ON log.id = log_id WHERE tenant = 'acme'")
    file = tmp_path / "acme" / "checkpoint"
    file.parent.mkdir()
    file.write_text(note)
    settings = Settings(database_url=shared_database.url, log_files=str(tmp_path))
    with ledger.engine.connect() as conn:

        def said(*faulty: str | None, settings: Settings = settings) -> tuple[str, str]:
            made = dict(claims_of(conn, settings, faulty))
            return made["acme"].word, made["other"].word

        waiting = dict(claims_of(conn, settings, ()))["acme"]
        run(conn, "DELETE FROM log_pending")
        found = [said(), said("acme"), said(None), said(settings=Settings(database_url=shared_database.url))]
        file.write_text(note.replace("\n8\n", "\n9\n"))
        found.append(said())
        conn.rollback()

    assert ("chained", True) == (waiting.word, "positions for entries" in waiting.missing)
    assert [("published", "sealed"), ("none", "sealed"), ("none", "none"), ("sealed", "sealed")] == found[:4]
    assert [("sealed", "sealed")] == found[4:]


def test_entries_that_no_checkpoint_covers_are_not_called_sealed(ledger, shared_database) -> None:
    settings = Settings(database_url=shared_database.url)
    with ledger.engine.connect() as conn:
        run(conn, "DELETE FROM log_pending")
        sealed = dict(claims_of(conn, settings, ()))["acme"]
        run(conn, UNPROTECTED)
        run(conn, LOOSE)
        append_leaf(conn)
        behind = dict(claims_of(conn, settings, ()))["acme"]
        conn.rollback()

    assert ("sealed", "chained") == (sealed.word, behind.word)
    assert "entries that have waited for more than 5 minutes: run `waxseal sealer`" in behind.missing


def test_a_place_that_hangs_is_asked_for_few_tenants(ledger, shared_database, monkeypatch) -> None:
    asked = []

    def hang(_self: object, name: str) -> bytes:
        asked.append(name)
        time.sleep(0.01)
        raise PlaceAway("it does not answer")

    monkeypatch.setattr(Place, "read", hang)
    monkeypatch.setattr(tenant_claims, "Patience", lambda: Patience(0.005))
    with ledger.engine.connect() as conn:
        run(conn, "DELETE FROM log_pending")
        made = dict(claims_of(conn, Settings(database_url=shared_database.url, log_files="/somewhere"), ()))
        conn.rollback()

    assert ["acme/checkpoint"] == asked
    assert [("sealed", True)] * 2 == [(each.word, "it does not answer" in each.missing) for each in made.values()]


def append_leaf(conn: Connection) -> None:
    """The log grows by the entry of 1 January 2026 that has no position yet; the sealer has not seen it."""
    found = f"SELECT {ACME}, 8, chain_id, seq FROM entry WHERE {of(seq=4)}"
    run(conn, f"INSERT INTO leaf (log_id, position, chain_id, seq) {found}")


class Outside:
    """A ledger that is published, with places of each kind, and rows about them that the database's owner writes."""

    def __init__(self, conn: Connection, note: str, folder: Path, tsa: Authority, witness: Witness) -> None:
        self.conn, self.note, self.witness = conn, note, witness
        self.published = folder / "published" / "acme" / "checkpoint"
        self.published.parent.mkdir(parents=True)
        self.published.write_text(note)
        self.file = folder / "worm" / "acme" / "r1" / f"{8:020}"
        self.file.parent.mkdir(parents=True)
        trusted = {"folder": f"{folder}/worm", "rfc3161": f"rfc3161+{tsa.url}#ca={tsa.certificates}"}
        self.trusted = {**trusted, "witness": f"witness+{witness.url}#vkey={witness.key.vkey}"}
        self.places = {"folder": f"{folder}/worm", "rfc3161": tsa.url, "witness": witness.url}
        self.settings = Settings(log_files=str(folder / "published"), log_anchors=" ".join(self.trusted.values()))
        run(conn, "DELETE FROM log_pending; ALTER TABLE anchor DISABLE TRIGGER ALL")

    def row(self, kind: str, receipt: bytes = b"") -> None:
        """The only row of the kind."""
        run(self.conn, f"DELETE FROM anchor WHERE kind = '{kind}'")
        told = {"kind": kind, "place": self.places[kind], "receipt": receipt}
        values = f"SELECT id, 8, :kind, :place, now(), :receipt FROM log WHERE id = {ACME}"
        self.conn.execute(text(f"INSERT INTO anchor (log_id, size, kind, place, at, receipt) {values}"), told)

    def said(self, *but: str) -> Claim:
        """What is claimed, when places of the kinds `but` are not configured."""
        anchors = " ".join(place for kind, place in self.trusted.items() if kind not in but)
        return dict(claims_of(self.conn, self.settings.model_copy(update={"log_anchors": anchors}), ()))["acme"]

    def grow(self) -> None:
        """By an entry of 1 January 2026; it is sealed and published."""
        append_leaf(self.conn)
        hashes = self.conn.execute(
            text(f"SELECT hash FROM leaf JOIN entry USING (chain_id, seq) WHERE log_id = {ACME} ORDER BY position")
        )
        checkpoint = Checkpoint(
            SIGNERS["acme"].name, 9, grown(Frontier(0, ()), [bytes(each) for each in hashes.scalars()]).root()
        )
        note = sign(checkpoint.text, [SIGNERS["acme"]])
        values = f"SELECT id, 9, :root, :note, now() FROM log WHERE id = {ACME}"
        told = {"root": checkpoint.root, "note": note}
        self.conn.execute(text(f"INSERT INTO checkpoint (log_id, size, root, note, signed_at) {values}"), told)
        self.published.write_text(note)

    def keep(self, note: str) -> None:
        self.file.write_text(note)
        self.row("folder")

    def cosigned(self, witness: Witness, note: str, ago: timedelta = timedelta()) -> None:
        at = int((datetime.now(UTC) - ago).timestamp())
        self.row("witness", cosign(witness.name, witness.private, note, at).encode())


@pytest.fixture
def outside(ledger, shared_database, tmp_path) -> Iterator[Outside]:
    ((note,),) = shared_database.rows("SELECT note FROM checkpoint JOIN log ON log.id = log_id WHERE tenant = 'acme'")
    (tmp_path / "tsa").mkdir()
    with time_stamping(tmp_path / "tsa") as tsa, served(Witness()) as witness, ledger.engine.connect() as conn:
        run(conn, UNPROTECTED)
        run(conn, LOOSE)
        yield Outside(conn, note, tmp_path, tsa, witness)
        conn.rollback()


def other_note() -> str:
    return sign(Checkpoint(SIGNERS["acme"].name, 8, b"x" * 32).text, [SIGNERS["acme"]])


def test_rows_about_anchors_claim_nothing(outside) -> None:
    assert ("published", "for anchored: an anchor outside: ") == (outside.said().word, outside.said().missing[:33])
    for kind in outside.places:
        outside.row(kind, b"receipt")
    forged = outside.said()
    unconfigured = outside.said(*outside.places)

    assert "published" == forged.word
    assert f"{outside.places['folder']}: for size 8, there is no acme/r1/{8:020} there" in forged.missing
    assert ("published", True) == (unconfigured.word, "name one in WAXSEAL_LOG_ANCHORS" in unconfigured.missing)


def test_a_file_elsewhere_anchors_when_it_is_the_logs_checkpoint_and_of_the_last_day(outside) -> None:
    forged = Signer(SIGNERS["acme"].name, new_private())
    text_ = outside.note.partition("\n\n")[0] + "\n"
    for note in ("", "what is this", other_note(), sign(text_, [forged]), text_ + "\n"):
        outside.keep(note)
        assert "published" == outside.said().word
    outside.keep(outside.note)
    kept, elsewhere = outside.said(), outside.said("folder")
    long_ago = (datetime.now(UTC) - timedelta(days=2)).timestamp()
    os.utime(outside.file, (long_ago, long_ago))
    at_rest = outside.said()
    outside.grow()
    old = outside.said()
    run(
        outside.conn,
        f"UPDATE entry SET at = {(datetime.now(UTC) - timedelta(hours=23)).timestamp() * 1e6:.0f} WHERE {of(seq=4)}",
    )
    lately = outside.said()
    outside.file.unlink()

    assert ("anchored", "for witnessed: the signature of a witness: ") == (kept.word, kept.missing[:43])
    assert "published" == elsewhere.word == outside.said().word
    assert kept == at_rest, "nothing has come since that could be anchored"
    assert ("published", True) == (old.word, "of the last day, because the log has grown: the latest is of" in old.missing)
    assert kept == lately, "what has come since has a day to be anchored"


def test_a_time_stamp_anchors_when_a_trusted_authority_gave_it_for_this_checkpoint(outside, tmp_path) -> None:
    def stamped(url: str, certificates: object, note: str) -> bytes:
        log = OpenLog(1, "acme", 1, 8, b"")
        return TimeStamps(url, str(certificates)).take(Known(log, None, note, 0, bytes))[0]

    url, certificates = outside.places["rfc3161"], outside.trusted["rfc3161"].partition("#ca=")[2]
    (tmp_path / "other").mkdir()
    with time_stamping(tmp_path / "other") as other:
        for receipt in (stamped(other.url, other.certificates, outside.note), stamped(url, certificates, other_note())):
            outside.row("rfc3161", receipt)
            assert ("published", True) == (outside.said().word, "the time stamp does not verify" in outside.said().missing)
    receipt = stamped(url, certificates, outside.note)
    outside.row("rfc3161", receipt)
    found, elsewhere = outside.said(), outside.said("rfc3161")
    outside.row("rfc3161", receipt[:-40])

    assert ["anchored", "published", "published"] == [found.word, elsewhere.word, outside.said().word]


def test_a_log_is_witnessed_when_the_witness_has_signed_this_checkpoint_in_the_last_day(outside) -> None:
    outside.keep(outside.note)
    outside.cosigned(Witness(outside.witness.name), outside.note)
    by_another = outside.said()
    outside.cosigned(outside.witness, other_note())
    of_another = outside.said()
    outside.cosigned(outside.witness, outside.note, timedelta(days=2))
    at_rest = outside.said()
    outside.grow()
    old = outside.said()
    outside.cosigned(outside.witness, outside.note)
    found, elsewhere = outside.said(), outside.said("witness")

    assert ["anchored"] * 4 == [by_another.word, of_another.word, old.word, elsewhere.word]
    assert "witnessed" == at_rest.word
    assert "no key that was given has signed this" in by_another.missing
    assert f"the signature of {outside.witness.name} is not of this text" in of_another.missing
    assert "of the last day" in old.missing
    assert ("witnessed", "") == (found.word, found.missing)


def test_a_place_that_cannot_be_reached_or_verified_anchors_nothing_and_is_asked_once(outside, monkeypatch) -> None:
    asked = []

    def away(_self: object, name: str) -> bytes:
        asked.append(name)
        raise PlaceAway("the disk is away")

    outside.keep(outside.note)
    monkeypatch.setattr(Place, "read", away)
    receipts, seals = AnchorReceipts(outside.settings.log_anchors), ledger_claims.seals(outside.conn)
    keys = [SIGNERS["acme"].key]
    for _ in range(2):
        found = receipts.look(outside.conn, seals[0], keys, ["folder"])
        assert (None, True) == (found.at, found.why.endswith("the disk is away"))
    assert 1 == len(asked)
    outside.row("rfc3161", b"receipt")
    found = AnchorReceipts("rfc3161+http://tsa.example#ca=/nothing").look(outside.conn, seals[0], keys, ["rfc3161"])
    assert "http://tsa.example: it has given no receipt" == found.why
    untrusted = AnchorReceipts(f"rfc3161+{outside.places['rfc3161']}#ca=/nothing")
    assert "no file of PEM certificates" in untrusted.look(outside.conn, seals[0], keys, ["rfc3161"]).why


def test_a_fault_of_a_log_stands_until_a_run_verifies_the_logs_again(ledger) -> None:
    with ledger.engine.connect() as conn:

        def kept(part: verifications.Part, word: Word, minute: int) -> Word:
            at, slice_ = NOW + timedelta(minutes=minute), (0, 1) if part == "slice" else None
            ledger_claims.keep(conn, [("acme", Claim(word, ""))], at, only_new=part == "new")
            found = Verified(1, 1, int(word == "none"))
            verifications.note(conn, found, at - timedelta(seconds=9), at, part, slice_)
            return next(each.word for each in ledger_claims.kept(conn) if each.tenant == "acme")

        found = [kept("slice", "none", 1), kept("new", "witnessed", 2), kept("new", "none", 3), kept("new", "witnessed", 4)]
        mended = [kept("slice", "witnessed", 5), kept("new", "none", 6), kept("new", "witnessed", 7)]
        whole = [kept("whole", "none", 8), kept("new", "anchored", 9), kept("whole", "anchored", 10)]
        conn.rollback()

    assert ["none"] * 4 == found
    assert ["witnessed", "none", "witnessed"] == mended
    assert ["none", "none", "anchored"] == whole


def test_the_verifier_notes_what_it_found_and_status_and_doctor_say_it(ledger, shared_database, shared_start) -> None:
    url = make_url(shared_database.url).set(username="test_verifier", password="verifier").render_as_string(hide_password=False)
    cli = Cli(shared_database)
    before = cli.json("status", "--over", 0)[0]["claims"]
    verifier = shared_start("verifier", database_url=url, verify_every=0.2, verify_nights=2)
    wait_for(lambda: shared_database.rows("SELECT 1 FROM verification WHERE part = 'new' OFFSET 1"))
    verifier.terminate()
    assert 0 == verifier.wait(30)
    runs = shared_database.rows("SELECT part, entries, faults, read, slice FROM verification ORDER BY id LIMIT 3")
    after = cli.json("status", "--over", 0)[0]["claims"]
    with ledger.engine.connect() as conn:
        told = [each.found for each in check_claims(conn)]

    told_writer = cli.run("verify").stderr
    cli.owner.run("verify")
    again = cli.json("status", "--over", 0)[0]["claims"]
    shared_database.run("TRUNCATE verified_point")

    assert [] == before
    assert "neither metrics nor status will show it: the login test_worker may not record it" in told_writer
    assert "verify as a member of the role waxseal_verifier" in told_writer
    assert 1 == told_writer.count("\n")
    assert [each["checked_at"] for each in after] < [each["checked_at"] for each in again]
    assert [("new", 14, 0, 14, None), ("slice", 14, 0, runs[1][3], 0), ("new", 14, 0, 0, None)] == runs
    assert {"acme", "other"} == {each["tenant"] for each in after}
    assert {"chained"} == {each["claim"] for each in after}
    assert told == ["acme: chained", "other: chained"]


# --- What was verified once before


def new(conn: Connection) -> tuple[Verified, list[Fault]]:
    faults: list[Fault] = []
    reached: list[points.Reached] = []
    found = verify_new(conn, KEYS, NO_BLOBS.get, faults.append, reached.append)
    points.keep(conn, list({each.chain_id: each for each in reached}.values()), NOW)
    return found, faults


def test_only_what_is_new_is_read_and_a_chain_with_a_fault_until_it_has_none(ledger) -> None:
    with ledger.engine.connect() as conn:
        first, again = new(conn)[0], new(conn)[0]
        append(conn, [event("acme", "order-2", "order-2-4"), event("acme", "order-9", "order-9-0")], {}, NOW)
        third = new(conn)[0]
        append(conn, [event("acme", "order-2", "order-2-5")], {}, NOW)
        run(conn, UNPROTECTED)
        run(conn, f"UPDATE content SET type = 'x' WHERE {of('order-2', seq=5)}")
        broken, still = new(conn), new(conn)
        run(conn, f"UPDATE content SET type = 'order.paid' WHERE {of('order-2', seq=5)}")
        mended, quiet = new(conn)[0], new(conn)[0]
        conn.rollback()

    assert [Verified(14, 3, 0), Verified(0, 0, 0), Verified(2, 2, 0)] == [first, again, third]
    assert [Verified(1, 1, 1), Verified(6, 1, 1)] == [broken[0], still[0]]
    assert [Verified(6, 1, 0), Verified(0, 0, 0)] == [mended, quiet]
    assert ["content_column"] == [fault.kind for fault in still[1]]


def rows_read(conn: Connection) -> int:
    """The rows of the ledger that this transaction has read so far, by scans of tables and of indexes."""
    counted = (
        "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"
        " WHERE relname IN ('entry', 'content', 'chain', 'leaf', 'verified_point')"
    )
    return int(conn.execute(text(counted)).scalar_one())


def test_a_tenant_and_what_is_new_cost_what_they_are_and_not_what_the_ledger_is(ledger) -> None:
    with ledger.engine.connect() as conn:
        for n in range(4):
            append(conn, [event("other", f"many-{m}", f"many-{m}-{n}") for m in range(1000)], {}, NOW)
        new(conn)
        run(conn, "ANALYZE entry, content, chain, leaf, log_pending, verified_point")
        before = rows_read(conn)
        assert [] == [*checked_with_logs(conn, Scope("acme"))]
        of_acme, before = rows_read(conn) - before, rows_read(conn)
        append(conn, [event("acme", "order-2", "order-2-4")], {}, NOW)
        appended, before = rows_read(conn) - before, rows_read(conn)
        found = new(conn)[0]
        of_new = rows_read(conn) - before
        conn.rollback()

    assert (Verified(1, 1, 0), True) == (found, appended < 100)
    assert of_acme < 1000, "acme has nine entries of 4,014"
    assert of_new < 4014 * 2, "each point's entry is looked up, and no other of the 4,014 entries is read"


def checked_with_logs(conn: Connection, scope: Scope) -> list[Fault]:
    faults: list[Fault] = []
    verify(conn, scope, KEYS, NO_BLOBS.get, faults.append)
    verify_logs(conn, replace(scope, part=None), faults.append)
    return faults


@pytest.mark.parametrize(
    ("expected", "edits"),
    [
        ({"shortened"}, [CUT[0].format(2), CUT[1].format(2), BACK]),
        ({"shortened"}, GONE),
        ({"rewritten"}, [f"UPDATE entry SET at = at + 1 WHERE {of(seq=None)}", rehash]),
        ({"shortened"}, [*RENUMBERED, rehash]),
    ],
    ids=[
        "a tail is cut, with the head",
        "a whole chain",
        "a chain is written anew",
        "an entry is cut out, the rest renumbered",
    ],
)
def test_what_was_verified_once_is_missed_without_a_log(ledger, expected, edits) -> None:
    with ledger.engine.connect() as conn:
        new(conn)
        run(conn, UNPROTECTED)
        for edit in edits:
            edit(conn) if callable(edit) else run(conn, edit)
        (found, faults), (_, again) = new(conn), new(conn)
        conn.rollback()

    assert expected <= {fault.kind for fault in faults}
    assert expected <= {fault.kind for fault in again}
    assert {"acme"} == {fault.tenant for fault in faults}
    assert found.faults == len(faults)
