"""No change of the ledger goes unnoticed, whatever rights in the database it was made with."""

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import Result
from cryptography.fernet import Fernet
from sqlalchemy import Connection, Engine, text

from ops.runtime.db import make_engine, transaction
from pipeline.append import append
from pipeline.chain import commitment, entry_hash, envelope
from pipeline.dedupe import chain_key, fingerprint
from pipeline.ledger.verify import verify
from pipeline.store.ledger.scan import INLINE, Scope
from schemas.event import Event
from schemas.fault import Fault, Verified
from support.blobs import NO_BLOBS
from support.cli import Cli
from support.waiting import wait_for

KEYS = {"acme": b"k" * 32, "other": b"o" * 32}
NOW = datetime(2026, 1, 1, tzinfo=UTC)

#: Removes all of Postgres' own protection against edits, so that only the verifier is left.
UNPROTECTED = """
    SET LOCAL session_replication_role = replica;
    ALTER TABLE entry DISABLE TRIGGER ALL;
    ALTER TABLE content DISABLE TRIGGER ALL;
    ALTER TABLE chain DISABLE TRIGGER ALL;
    DO $$ DECLARE found record; BEGIN
      FOR found IN SELECT conrelid::regclass AS owner, conname FROM pg_constraint
                   WHERE conrelid IN ('entry'::regclass, 'content'::regclass, 'chain'::regclass)
                   ORDER BY contype = 'f' DESC LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I CASCADE', found.owner, found.conname);
      END LOOP;
      FOR found IN SELECT attrelid::regclass AS owner, attname FROM pg_attribute WHERE attnotnull AND attnum > 0
                   AND attrelid IN ('entry'::regclass, 'content'::regclass, 'chain'::regclass) LOOP
        EXECUTE format('ALTER TABLE %s ALTER %I DROP NOT NULL', found.owner, found.attname);
      END LOOP;
    END $$"""


def event(tenant: str, subject: str, id_: str, body: bytes = b'{"amount": 1.10}') -> Event:
    names = {"id": id_, "source": "shop", "type": "order.paid", "specversion": "1.0", "datacontenttype": "application/json"}
    attributes = {**names, "subject": subject, "time": "2026-01-01T12:00:00.5+01:00"}
    return Event(tenant, attributes, body, fingerprint(KEYS[tenant], "shop", id_), chain_key(KEYS[tenant], subject))


def record(engine: Engine, *events: Event) -> None:
    with transaction(engine) as conn:
        append(conn, events, {}, NOW)


@dataclass
class Ledger:
    """A ledger of three chains of four entries; every tampering is rolled back."""

    cli: Cli
    engine: Engine

    def verify(self, scope: Scope = Scope(), keys: dict[str, bytes] | None = KEYS) -> tuple[Verified, list[Fault]]:  # noqa: B008
        with self.engine.connect() as conn:
            return checked(conn, scope, keys)

    def tampered(self, *edits: str | Callable[[Connection], None], scope: Scope = Scope()) -> list[Fault]:  # noqa: B008
        with self.engine.connect() as conn:
            run(conn, UNPROTECTED)
            for edit in edits:
                if callable(edit):
                    edit(conn)
                else:
                    assert run(conn, edit), f"nothing was changed by: {edit}"
            verified, faults = checked(conn, scope, KEYS)
            conn.rollback()
        assert len(faults) == verified.faults
        assert ("broken" if faults else "intact") == verified.verdict
        return faults

    def kinds(self, *edits: str | Callable[[Connection], None]) -> set[str]:
        return {fault.kind for fault in self.tampered(*edits)}


def run(conn: Connection, statement: str) -> int:
    """Runs a statement as it is, directly on psycopg; returns how many rows it changed."""
    driver = conn.connection.driver_connection
    assert driver is not None
    return driver.execute(statement).rowcount


def checked(conn: Connection, scope: Scope, keys: dict[str, bytes] | None) -> tuple[Verified, list[Fault]]:
    faults: list[Fault] = []
    return verify(conn, scope, keys, NO_BLOBS.get, faults.append), faults


@pytest.fixture(scope="module")
def ledger(shared_database) -> Iterator[Ledger]:
    add_tenants(shared_database)
    engine = make_engine(shared_database.url)
    for tenant, subject in (("acme", "order-1"), ("acme", "order-2"), ("other", "order-1")):
        record(engine, *(event(tenant, subject, f"{subject}-{n}") for n in range(3)))
        record(engine, event(tenant, subject, f"{subject}-3", b"x" * (INLINE + 1)))
    yield Ledger(Cli(shared_database).owner, engine)
    engine.dispose()


def add_tenants(database) -> None:
    with database.connect() as conn:
        for tenant, key in KEYS.items():
            conn.execute("INSERT INTO tenant (name, fingerprint_key) VALUES (%s, %s)", (tenant, database.vault.encrypt(key)))


def of(subject: str = "order-1", tenant: str = "acme", seq: int | None = 1) -> str:
    """The condition for one entry, valid in each of the tables."""
    chain = f"chain_id = (SELECT chain_id FROM chain WHERE tenant = '{tenant}' AND subject = '{subject}')"
    return chain if seq is None else f"{chain} AND seq = {seq}"


def test_what_nobody_touched_is_intact(ledger) -> None:
    assert (Verified(12, 3, 0), []) == ledger.verify()
    assert (Verified(8, 2, 0), []) == ledger.verify(Scope("acme"))
    assert (Verified(4, 1, 0), []) == ledger.verify(Scope("acme", "order-2"))
    assert (Verified(4, 1, 0), []) == ledger.verify(Scope("acme", "order-2", chain_key(KEYS["acme"], "order-2")))
    assert (Verified(12, 3, 0), []) == ledger.verify(keys=None)
    assert [] == ledger.tampered()


#: Table, column, the value written there, and the faults that must be among those reported.
EDITS: list[tuple[str, str, str, set[str]]] = [
    (
        "entry",
        "chain_id",
        "gen_random_uuid()",
        {"hash", "chain_row_missing", "gap", "content_missing", "content_without_entry"},
    ),
    ("entry", "chain_id", "NULL", {"hash", "envelope", "chain_row_missing", "gap", "content_without_entry"}),
    ("entry", "seq", "7", {"hash", "gap", "head", "content_missing", "content_without_entry"}),
    ("entry", "seq", "NULL", {"hash", "envelope", "gap", "head", "content_without_entry"}),
    ("entry", "prev_hash", "sha256('x')", {"hash", "link"}),
    ("entry", "prev_hash", "NULL", {"hash", "link"}),
    ("entry", "hash", "sha256('x')", {"hash"}),
    ("entry", "hash", "NULL", {"hash"}),
    ("entry", "at", "at + 1", {"hash", "link"}),
    ("entry", "at", "NULL", {"envelope", "hash", "link"}),
    ("entry", "kind", "'gift'", {"envelope", "hash", "link"}),
    ("entry", "kind", "NULL", {"envelope", "hash", "link"}),
    ("entry", "pc", "sha256('x')", {"hash", "link", "content_altered"}),
    ("entry", "pc", "'short'", {"envelope", "hash", "link"}),
    ("entry", "pc", "NULL", {"envelope", "hash", "link"}),
    ("entry", "tenant", "'other'", {"hash", "link", "subject", "fingerprint"}),
    ("entry", "tenant", "NULL", {"envelope", "hash", "link"}),
    ("entry", "fingerprint", "gen_random_uuid()", {"fingerprint"}),
    ("entry", "fingerprint", "NULL", {"fingerprint"}),
    ("content", "chain_id", "gen_random_uuid()", {"content_missing", "content_without_entry"}),
    ("content", "chain_id", "NULL", {"content_missing", "content_without_entry"}),
    ("content", "seq", "9", {"content_missing", "content_without_entry"}),
    ("content", "seq", "NULL", {"content_missing", "content_without_entry"}),
    (
        "content",
        "attributes",
        "convert_to(replace(convert_from(attributes, 'UTF8'), 'paid', 'free'), 'UTF8')",
        {"content_altered", "content_column"},
    ),
    (
        "content",
        "attributes",
        "convert_to(convert_from(attributes, 'UTF8')::jsonb::text, 'UTF8')",
        {"content_altered", "attributes"},
    ),
    ("content", "attributes", "'[]'", {"content_altered", "attributes"}),
    ("content", "attributes", "NULL", {"content_missing"}),
    ("content", "body", "convert_to(replace(convert_from(body, 'UTF8'), '1.10', '1.1'), 'UTF8')", {"content_altered"}),
    ("content", "body", "''", {"content_altered"}),
    ("content", "body", "NULL", {"content_missing"}),
    ("content", "blob", "'s3://elsewhere'", {"content_column"}),
    ("content", "salt", "sha256('x')", {"content_altered"}),
    ("content", "salt", "'short'", {"content_altered"}),
    ("content", "salt", "NULL", {"content_missing"}),
    ("content", "source", "'bank'", {"content_column"}),
    ("content", "source", "NULL", {"content_column"}),
    ("content", "type", "'order.free'", {"content_column"}),
    ("content", "type", "NULL", {"content_column"}),
    ("content", "subject", "'order-9'", {"content_column"}),
    ("content", "subject", "NULL", {"content_column"}),
    ("content", "time", "\"time\" + interval '1 microsecond'", {"content_column"}),
    ("content", "time", "'infinity'", {"content_column"}),
    ("content", "time", "NULL", {"content_column"}),
    ("chain", "key", "gen_random_uuid()", {"chain_row"}),
    ("chain", "key", "NULL", {"chain_row"}),
    ("chain", "tenant", "'other'", {"chain_row", "subject"}),
    ("chain", "tenant", "'nobody'", {"chain_row", "subject"}),
    ("chain", "tenant", "NULL", {"chain_row", "subject"}),
    ("chain", "subject", "'order-9'", {"chain_row", "subject"}),
    ("chain", "subject", "NULL", {"chain_row", "subject"}),
    ("chain", "chain_id", "gen_random_uuid()", {"chain_row_missing", "entries_missing"}),
    ("chain", "chain_id", "NULL", {"chain_row_missing", "entries_missing"}),
    ("chain", "seq", "2", {"head"}),
    ("chain", "seq", "4", {"head"}),
    ("chain", "seq", "NULL", {"head"}),
    ("chain", "hash", "sha256('x')", {"head"}),
    ("chain", "hash", "NULL", {"head"}),
]


@pytest.mark.parametrize(("table", "column", "value", "expected"), EDITS, ids=[" ".join(edit[:3])[:50] for edit in EDITS])
def test_an_edit_of_any_column_is_named(ledger, table, column, value, expected) -> None:
    where = of(seq=None if table == "chain" else 1)

    assert expected == ledger.kinds(f'UPDATE {table} SET "{column}" = {value} WHERE {where}')


def test_no_column_was_left_out(ledger) -> None:
    tables = ("entry", "content", "chain")
    query = text("SELECT table_name, column_name FROM information_schema.columns WHERE table_name = ANY(:tables)")
    with ledger.engine.connect() as conn:
        columns = {tuple(row) for row in conn.execute(query, {"tables": list(tables)})}

    assert columns == {(table, column) for table, column, _, _ in EDITS}


def test_a_long_body_is_checked_to_its_end(ledger) -> None:
    assert {"content_altered"} == ledger.kinds(f"UPDATE content SET body = body || 'y' WHERE {of(seq=3)}")
    assert {"content_altered"} == ledger.kinds(f"UPDATE content SET body = set_byte(body, 65536, 0) WHERE {of(seq=3)}")


def test_a_fault_says_where_it_is(ledger) -> None:
    (fault,) = ledger.tampered(f"UPDATE content SET body = 'x' WHERE {of('order-2', seq=2)}")

    assert ("acme", "order-2", 2, "content_altered") == (fault.tenant, fault.subject, fault.seq, fault.kind)
    assert 32 == len(fault.chain or "")


def test_every_fault_is_named_not_just_the_first(ledger) -> None:
    faults = ledger.tampered(
        f"UPDATE content SET body = 'x' WHERE {of('order-2', seq=2)}",
        f"UPDATE entry SET hash = 'x' WHERE {of(seq=1)}",
        f"DELETE FROM entry WHERE {of(tenant='other', seq=3)}",
    )

    assert {
        ("acme", "order-2", 2, "content_altered"),
        ("acme", "order-1", 1, "hash"),
        ("other", "order-1", None, "head"),
    } <= {(fault.tenant, fault.subject, fault.seq, fault.kind) for fault in faults}


@pytest.mark.parametrize(
    ("expected", "edits"),
    [
        ({"head"}, ["DELETE FROM entry WHERE {tail}", "DELETE FROM content WHERE {tail}"]),
        ({"head", "content_without_entry"}, ["DELETE FROM entry WHERE {tail}"]),
        ({"gap"}, ["DELETE FROM entry WHERE {middle}", "DELETE FROM content WHERE {middle}"]),
        ({"gap"}, ["DELETE FROM entry WHERE {first}", "DELETE FROM content WHERE {first}"]),
        ({"content_missing"}, ["DELETE FROM content WHERE {middle}"]),
        ({"entries_missing"}, ["DELETE FROM entry WHERE {all}", "DELETE FROM content WHERE {all}"]),
        ({"entries_missing", "content_without_entry"}, ["DELETE FROM entry WHERE {all}"]),
        ({"content_without_entry"}, ["DELETE FROM entry WHERE {all}", "DELETE FROM chain WHERE {all}"]),
        ({"chain_row_missing"}, ["DELETE FROM chain WHERE {all}"]),
        ({"repeated"}, ["INSERT INTO entry SELECT * FROM entry WHERE {middle}"]),
        (
            {"repeated", "hash"},
            [
                "INSERT INTO entry SELECT * FROM entry WHERE {middle}",
                "UPDATE entry SET at = at + 1 WHERE ctid = (SELECT max(ctid) FROM entry WHERE {middle})",
            ],
        ),
    ],
    ids=[
        "the tail",
        "the tail, its content forgotten",
        "one in the middle",
        "the first",
        "content",
        "all entries",
        "all entries, their content forgotten",
        "a chain with its row, its content forgotten",
        "the row of a chain",
        "one number twice",
        "a fork",
    ],
)
def test_what_is_deleted_or_doubled_is_named(ledger, expected, edits) -> None:
    places = {"tail": of(seq=3), "middle": of(seq=1), "first": of(seq=0), "all": of(seq=None)}

    assert expected == ledger.kinds(*(edit.format(**places) for edit in edits))


def exchange(table: str, columns: str, one: str, other: str) -> Callable[[Connection], None]:
    """Exchanges the columns of two rows."""
    names = columns.split(", ")

    def edit(conn: Connection) -> None:
        swapped = ", ".join(f'"{name}" = b."{name}"' for name in names)
        ids = [conn.exec_driver_sql(f"SELECT ctid FROM {table} WHERE {where}").scalar_one() for where in (one, other)]
        conn.exec_driver_sql(
            f"UPDATE {table} a SET {swapped} FROM {table} b"
            f" WHERE (a.ctid, b.ctid) IN (('{ids[0]}'::tid, '{ids[1]}'::tid), ('{ids[1]}'::tid, '{ids[0]}'::tid))"
        )

    return edit


@pytest.mark.parametrize(
    ("expected", "edit"),
    [
        ({"hash", "link", "content_altered"}, ("entry", "seq", of(seq=1), of(seq=2))),
        ({"content_altered"}, ("content", "seq", of(seq=1), of(seq=2))),
        ({"hash", "link", "content_altered", "fingerprint"}, ("entry", "chain_id", of(seq=1), of("order-2", seq=1))),
        ({"hash", "link", "content_altered"}, ("entry", "chain_id, tenant", of(seq=1), of(tenant="other", seq=1))),
        ({"content_altered", "subject"}, ("content", "chain_id", of(seq=1), of("order-2", seq=1))),
        ({"content_altered"}, ("content", "chain_id", of(seq=1), of(tenant="other", seq=1))),
        ({"subject", "head"}, ("chain", "chain_id", of(seq=None), of("order-2", seq=None))),
        ({"subject"}, ("chain", "chain_id, seq, hash", of(seq=None), of("order-2", seq=None))),
        ({"subject"}, ("chain", "chain_id, seq, hash", of(seq=None), of(tenant="other", seq=None))),
        ({"chain_row", "subject"}, ("chain", "tenant", of(seq=None), of(tenant="other", seq=None))),
        ({"subject"}, ("chain", "tenant, subject, key", of(seq=None), of("order-2", seq=None))),
    ],
    ids=[
        "entries of one chain",
        "contents of one chain",
        "entries of two subjects",
        "entries of two tenants",
        "contents of two subjects",
        "contents of two tenants",
        "the chains of two subjects",
        "the chains of two subjects with their heads",
        "the chains of two tenants with their heads",
        "the tenants of two chains",
        "the names of two chains",
    ],
)
def test_rows_that_are_exchanged_are_named(ledger, expected, edit) -> None:
    assert expected <= ledger.kinds(exchange(*edit))


def rewrite(seq: int, *, with_head: bool = False) -> Callable[[Connection], None]:
    """An informed forgery: a new body, with a commitment, an envelope and a hash that match it."""

    def edit(conn: Connection) -> None:
        row = conn.exec_driver_sql(
            f"SELECT entry.*, attributes, salt FROM entry JOIN content USING (chain_id, seq) WHERE {of(seq=seq)}"
        ).one()
        pc = commitment(row.salt, row.attributes, b"forged")
        raw = envelope(row.chain_id.hex, row.seq, row.prev_hash, row.tenant, row.at, row.kind, pc)
        forged: dict[str, Any] = {"pc": pc, "hash": entry_hash(raw), "body": b"forged"}
        conn.execute(text(f"UPDATE entry SET pc = :pc, hash = :hash WHERE {of(seq=seq)}"), forged)
        conn.execute(text(f"UPDATE content SET body = :body WHERE {of(seq=seq)}"), forged)
        if with_head:
            conn.execute(text(f"UPDATE chain SET hash = :hash WHERE {of(seq=None)}"), forged)

    return edit


def test_an_entry_that_is_rewritten_with_everything_that_belongs_to_it_is_betrayed_by_the_next(ledger) -> None:
    assert {"link"} == ledger.kinds(rewrite(1))
    assert [2] == [fault.seq for fault in ledger.tampered(rewrite(1))]
    assert {"head"} == ledger.kinds(rewrite(3))


def test_a_scope_sees_what_was_moved_out_of_it(ledger) -> None:
    acme = Scope("acme")
    moved = ledger.tampered(f"UPDATE chain SET tenant = 'other' WHERE {of(seq=None)}", scope=acme)
    deleted = ledger.tampered(f"DELETE FROM chain WHERE {of(seq=None)}", scope=acme)
    elsewhere = ledger.tampered(f"UPDATE entry SET tenant = 'acme' WHERE {of(tenant='other')}", scope=Scope("other"))

    assert {"chain_row", "subject"} == {fault.kind for fault in moved}
    assert {"chain_row_missing"} == {fault.kind for fault in deleted}
    assert {"hash", "link", "subject", "fingerprint"} == {fault.kind for fault in elsewhere}
    key = chain_key(KEYS["acme"], "order-1")
    renamed = f"UPDATE chain SET subject = 'order-9' WHERE {of(seq=None)}"
    assert {"chain_row", "subject"} == {fault.kind for fault in ledger.tampered(renamed, scope=Scope("acme", "order-1", key))}


def test_a_scope_does_not_see_what_is_outside_it(ledger) -> None:
    with ledger.engine.connect() as conn:
        run(conn, UNPROTECTED)
        assert run(conn, f"UPDATE content SET body = 'x' WHERE {of()}")
        outcomes = [
            checked(conn, scope, KEYS)[0].verdict for scope in (Scope("acme"), Scope("acme", "order-2"), Scope("other"))
        ]
        conn.rollback()

    assert ["broken", "intact", "intact"] == outcomes


def test_a_tenant_whose_key_is_gone_is_named(ledger) -> None:
    _, faults = ledger.verify(keys={"acme": KEYS["acme"]})

    assert {"chain_row", "fingerprint"} == {fault.kind for fault in faults}
    assert {"other"} == {fault.tenant for fault in faults}


def test_progress_is_told(database, engine, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.ledger.verify.STEP", 4)
    database.add_tenant()
    record(engine, *(event("acme", f"s-{n % 3}", f"e-{n}") for n in range(10)))
    told: list[int] = []
    with engine.connect() as conn:
        verify(conn, Scope(), KEYS, NO_BLOBS.get, lambda _: None, told.append)

    assert [4, 8] == told


def test_what_is_appended_meanwhile_is_never_taken_for_a_fault(database, engine) -> None:
    database.add_tenant()
    done = threading.Event()
    ids = itertools.count()

    def write() -> None:
        while not done.is_set():
            record(engine, *(event("acme", f"s-{n}", f"e-{next(ids)}") for n in range(5)))

    writer = threading.Thread(target=write)
    writer.start()
    sizes = []

    def verify_once() -> int:
        with transaction(engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)) as conn:
            verified, faults = checked(conn, Scope(), KEYS)
        assert [] == faults
        sizes.append(verified.entries)
        return len(sizes)

    try:
        wait_for(lambda: verify_once() >= 25 and len(set(sizes)) > 3)
    finally:
        done.set()
        writer.join()


def last(result: Result) -> dict[str, Any]:
    return json.loads(result.stdout.splitlines()[-1])


def test_the_exit_code_is_0_when_all_is_intact(ledger) -> None:
    everything, tenant, subject = (
        ledger.cli.run("verify"),
        ledger.cli.run("verify", "--tenant", "acme", "--json"),
        ledger.cli.run("verify", "--tenant", "acme", "--subject", "order-1", "--json"),
    )

    assert (0, 0, 0) == (everything.exit_code, tenant.exit_code, subject.exit_code)
    assert "intact: 12 entries in 3 chains" in everything.output
    assert {"verdict": "intact", "entries": 8, "chains": 2, "faults": 0, "not_checked": []} == last(tenant)
    assert 4 == last(subject)["entries"]


def test_the_exit_code_is_1_when_something_is_not_and_every_fault_is_a_line(database, engine, cli) -> None:
    add_tenants(database)
    record(engine, *(event("acme", "order-1\x1b[31m", f"e-{n}") for n in range(3)))
    with database.connect() as conn:
        conn.execute("UPDATE content SET type = 'x' WHERE seq = 1")
        conn.execute("UPDATE content SET body = 'x' WHERE seq = 2")
    as_json, as_text = cli.run("verify", "--json"), cli.run("verify")

    assert (1, 1) == (as_json.exit_code, as_text.exit_code)
    faults = [json.loads(line) for line in as_json.stdout.splitlines()[:-1]]
    assert [(1, "content_column"), (2, "content_altered")] == [(fault["seq"], fault["kind"]) for fault in faults]
    assert {"tenant", "subject", "chain", "seq", "kind", "detail"} == set(faults[0])
    assert ("broken", 2) == (last(as_json)["verdict"], last(as_json)["faults"])
    assert "NOT intact, 2 faults" in as_text.output
    assert "\x1b" not in as_text.output
    assert [(3, 1, 2)] * 2 == database.rows("SELECT entries, chains, faults FROM verification")


def test_a_check_of_the_whole_ledger_is_recorded_and_its_verdict_stands_where_it_cannot_be(database, engine, cli) -> None:
    add_tenants(database)
    record(engine, event("acme", "order-1", "e-1"))
    parts = [cli.run("verify", "--tenant", "acme").exit_code, cli.run("verify").exit_code]
    database.run("ALTER TABLE verification ADD CONSTRAINT closed CHECK (false) NOT VALID")
    unrecorded = cli.run("verify")
    database.run("ALTER TABLE verification DROP CONSTRAINT closed")

    assert ([0, 0], 0) == (parts, unrecorded.exit_code)
    assert "intact: 1 entry" in unrecorded.stdout
    assert "The result is not recorded" in unrecorded.stderr
    assert [(1, 1, 0)] == database.rows("SELECT entries, chains, faults FROM verification")


def test_the_exit_code_is_1_when_nothing_was_there_to_check(database, cli) -> None:
    database.add_tenant()
    everything = cli.run("verify", "--json")
    tenant = cli.run("verify", "--tenant", "acme")
    subject = cli.run("verify", "--tenant", "acme", "--subject", "none", "--json")

    assert (1, 1, 1) == (everything.exit_code, tenant.exit_code, subject.exit_code)
    assert ("nothing", "nothing") == (last(everything)["verdict"], last(subject)["verdict"])
    assert "nothing to check" in tenant.output


def test_the_exit_code_is_2_when_it_could_not_be_checked(ledger, servers) -> None:
    away = ledger.cli.but(database_url="postgresql://nobody@127.0.0.1:1/none").run("verify")
    empty = ledger.cli.but(database_url=servers.database_url).run("verify")
    wrong_key = ledger.cli.but(keys=Fernet.generate_key().decode()).run("verify")
    unknown = ledger.cli.run("verify", "--tenant", "nobody")
    usage = ledger.cli.run("verify", "--subject", "order-1")

    assert [2] * 5 == [each.exit_code for each in (away, empty, wrong_key, unknown, usage)]
    assert "does not answer" in away.output
    assert "waxseal migrate" in empty.output
    assert "WAXSEAL_KEYS" in wrong_key.output
    assert "there are: acme, other" in unknown.output
    assert all(1 == each.stderr.count("\n") for each in (away, empty, wrong_key, unknown, usage))


def test_without_keys_it_is_said_what_was_not_checked(ledger) -> None:
    unkeyed = ledger.cli.but(keys="")
    as_text, as_json = unkeyed.run("verify"), unkeyed.run("verify", "--json")

    assert (0, 0) == (as_text.exit_code, as_json.exit_code)
    assert "Not checked, for want of WAXSEAL_KEYS" in as_text.stderr
    assert ["fingerprint", "chain key"] == last(as_json)["not_checked"]


def test_it_needs_no_more_rights_than_a_worker_has(ledger, shared_database) -> None:
    assert 0 == Cli(shared_database).run("verify").exit_code
