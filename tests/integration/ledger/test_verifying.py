"""No change of the ledger goes unnoticed, whatever rights in the database it was made with."""

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from click.testing import Result
from cryptography.fernet import Fernet
from sqlalchemy import Connection, Engine, make_url, text

from ops.admin.verifying.protections import missing
from ops.runtime.db import make_engine, transaction
from pipeline.chain import commitment
from pipeline.dedupe import chain_key
from pipeline.ledger.verifying.verify import verify
from pipeline.store.ledger import repeats
from pipeline.store.ledger.scan import INLINE, Scope
from schemas.event import Event
from schemas.ledger.fault import Fault, Verified
from support.blobs import NO_BLOBS
from support.cli import Cli
from support.ledger.events import event_of, record
from support.ledger.tampering import REHASHED, UNPROTECTED, of, run
from support.waiting import wait_for

KEYS = {"acme": b"k" * 32, "other": b"o" * 32}


def event(tenant: str, subject: str, id_: str, body: bytes = b'{"amount": 1.10}') -> Event:
    return event_of(KEYS[tenant], tenant, subject, id_, body, time="2026-01-01T12:00:00.5+01:00")


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


def verifiers_url(database) -> str:
    return make_url(database.url).set(username="test_verifier", password="verifier").render_as_string(hide_password=False)


@contextmanager
def verifiers(database) -> Iterator[Engine]:
    engine = make_engine(verifiers_url(database))
    yield engine
    engine.dispose()


def test_what_nobody_touched_is_intact(ledger) -> None:
    assert (Verified(12, 3, 0), []) == ledger.verify()
    assert (Verified(8, 2, 0), []) == ledger.verify(Scope("acme"))
    assert (Verified(4, 1, 0), []) == ledger.verify(Scope("acme", "order-2"))
    assert (Verified(4, 1, 0), []) == ledger.verify(Scope("acme", "order-2", chain_key(KEYS["acme"], "order-2")))
    assert (Verified(12, 3, 0), []) == ledger.verify(keys=None)
    assert [] == ledger.tampered()


FORKED = f"UPDATE entry SET at = at + 1, hash = {REHASHED.replace('at,', 'at + 1,')}"

#: Table, column, the value written there, and the faults that are reported.
EDITS: list[tuple[str, str, str, set[str]]] = [
    ("entry", "chain_id", "gen_random_uuid()", {"column", "gap", "content_without_entry"}),
    ("entry", "chain_id", "NULL", {"column", "gap", "content_without_entry"}),
    ("entry", "seq", "7", {"column", "gap", "content_without_entry"}),
    ("entry", "seq", "NULL", {"column", "gap", "content_without_entry"}),
    ("entry", "prev_hash", "sha256('x')", {"column"}),
    ("entry", "prev_hash", "NULL", {"column"}),
    ("entry", "hash", "sha256('x')", {"hash"}),
    ("entry", "hash", "NULL", {"hash"}),
    ("entry", "tenant", "'other'", {"column"}),
    ("entry", "tenant", "NULL", {"column"}),
    ("entry", "at", "at + 1", {"column"}),
    ("entry", "at", "NULL", {"column"}),
    ("entry", "kind", "'gift'", {"column"}),
    ("entry", "kind", "'erasure'", {"column"}),
    ("entry", "kind", "NULL", {"column"}),
    ("entry", "pc", "sha256('x')", {"column"}),
    ("entry", "pc", "NULL", {"column"}),
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
        {"content_altered"},
    ),
    ("content", "attributes", "convert_to(convert_from(attributes, 'UTF8')::jsonb::text, 'UTF8')", {"content_altered"}),
    ("content", "attributes", "'[]'", {"content_altered"}),
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
    ("chain", "tenant", "'other'", {"chain_row", "chain_repeated"}),
    ("chain", "tenant", "'nobody'", {"chain_row"}),
    ("chain", "tenant", "NULL", {"chain_row"}),
    ("chain", "subject", "'order-9'", {"chain_row"}),
    ("chain", "subject", "NULL", {"chain_row"}),
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
        ({"repeated", "fingerprint_repeated"}, ["INSERT INTO entry SELECT * FROM entry WHERE {middle}"]),
        (
            {"repeated", "fingerprint_repeated"},
            [
                "INSERT INTO entry SELECT * FROM entry WHERE {middle}",
                FORKED + " WHERE ctid = (SELECT max(ctid) FROM entry WHERE {middle})",
            ],
        ),
        ({"content_repeated"}, ["INSERT INTO content SELECT * FROM content WHERE {middle}"]),
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
        "a content twice",
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
        ({"column", "gap"}, ("entry", "seq", of(seq=1), of(seq=2))),
        ({"content_altered"}, ("content", "seq", of(seq=1), of(seq=2))),
        ({"column", "gap"}, ("entry", "chain_id", of(seq=1), of("order-2", seq=1))),
        ({"column", "gap"}, ("entry", "chain_id, tenant", of(seq=1), of(tenant="other", seq=1))),
        ({"content_altered"}, ("content", "chain_id", of(seq=1), of("order-2", seq=1))),
        ({"content_altered"}, ("content", "chain_id", of(seq=1), of(tenant="other", seq=1))),
        ({"chain_row", "head"}, ("chain", "chain_id", of(seq=None), of("order-2", seq=None))),
        ({"chain_row"}, ("chain", "chain_id, seq, hash", of(seq=None), of("order-2", seq=None))),
        ({"chain_row"}, ("chain", "chain_id, seq, hash", of(seq=None), of(tenant="other", seq=None))),
        ({"chain_row"}, ("chain", "tenant", of(seq=None), of(tenant="other", seq=None))),
        ({"chain_row"}, ("chain", "tenant, subject, key", of(seq=None), of("order-2", seq=None))),
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
    assert expected == ledger.kinds(exchange(*edit))


def rewrite(seq: int) -> Callable[[Connection], None]:
    """An informed forgery: a new body, with a commitment and a hash that match it."""

    def edit(conn: Connection) -> None:
        found = text(f"SELECT attributes, salt FROM content WHERE {of(seq=seq)}")
        row = conn.execute(found).one()
        forged = {"pc": commitment(row.salt, row.attributes, b"forged"), "body": b"forged"}
        conn.execute(text(f"UPDATE entry SET pc = :pc WHERE {of(seq=seq)}"), forged)
        conn.execute(text(f"UPDATE entry SET hash = {REHASHED.replace('::bytea', '')} WHERE {of(seq=seq)}"))
        conn.execute(text(f"UPDATE content SET body = :body WHERE {of(seq=seq)}"), forged)

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

    assert {"chain_row"} == {fault.kind for fault in moved}
    assert {"chain_row_missing"} == {fault.kind for fault in deleted}
    assert {"column"} == {fault.kind for fault in elsewhere}
    key = chain_key(KEYS["acme"], "order-1")
    renamed = f"UPDATE chain SET subject = 'order-9' WHERE {of(seq=None)}"
    assert {"chain_row"} == {fault.kind for fault in ledger.tampered(renamed, scope=Scope("acme", "order-1", key))}


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

    assert {"chain_row"} == {fault.kind for fault in faults}
    assert {"other"} == {fault.tenant for fault in faults}


def test_progress_is_told(database, engine, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.store.ledger.scan.FETCH", 4)
    database.add_tenant()
    record(engine, *(event("acme", f"s-{n % 3}", f"e-{n}") for n in range(10)))
    told: list[int] = []
    with verifiers(database) as reader, reader.connect() as conn:
        verify(conn, Scope(), KEYS, NO_BLOBS.get, lambda _: None, told.append)

    assert [4, 8, 10] == told


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
        with transaction(reader.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)) as conn:
            verified, faults = checked(conn, Scope(), KEYS)
        assert [] == faults
        sizes.append(verified.entries)
        return len(sizes)

    try:
        with verifiers(database) as reader:
            wait_for(lambda: verify_once() >= 25 and len(set(sizes)) > 3)
    finally:
        done.set()
        writer.join()


def verifier(database) -> Cli:
    """Commands with the rights of the verifier process."""
    return Cli(database).but(database_url=verifiers_url(database))


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


def test_the_exit_code_is_1_when_something_is_not_and_every_fault_is_a_line(database, engine) -> None:
    cli = verifier(database)
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


def test_a_check_of_the_whole_ledger_is_recorded_and_its_verdict_stands_where_it_cannot_be(database, engine) -> None:
    cli = verifier(database)
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


def test_the_exit_code_is_1_when_nothing_was_there_to_check(database) -> None:
    cli = verifier(database)
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

    accepted = unkeyed.run("verify", "--without-keys")

    assert (2, 2, 0) == (as_text.exit_code, as_json.exit_code, accepted.exit_code)
    assert "Not checked, for want of WAXSEAL_KEYS" in as_text.stderr
    assert ["fingerprint", "chain key"] == last(as_json)["not_checked"]


def test_the_verifiers_login_can_verify_and_record_it_and_no_more(ledger, shared_database) -> None:
    cli = verifier(shared_database)
    found = cli.run("verify")

    assert (0, "") == (found.exit_code, found.stderr)
    with psycopg.connect(cli.environment["WAXSEAL_DATABASE_URL"]) as conn:
        may = conn.execute(
            "SELECT relname, kind FROM pg_class, unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS kind"
            " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
            " AND has_table_privilege(pg_class.oid, kind) ORDER BY 1, 2"
        ).fetchall()
    kept = [(table, right) for table in ("claim", "verified_point") for right in ("INSERT", "UPDATE")]
    assert sorted([*kept, ("verification", "INSERT")]) == sorted(may)


def test_nobody_but_the_verifier_and_the_owner_can_say_what_was_found(ledger) -> None:
    asked = (
        "SELECT DISTINCT rolname FROM pg_roles, unnest(ARRAY['verification', 'claim', 'verified_point']) AS kept,"
        " unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS kind"
        " WHERE rolname LIKE 'waxseal\\_%' AND has_table_privilege(rolname, kept, kind)"
    )
    with ledger.engine.connect() as conn:
        may = conn.exec_driver_sql(asked.replace("%", "%%")).scalars().all()

    assert ["waxseal_verifier"] == [role for role in may if not role.endswith("_login")]


def test_two_processes_find_what_one_finds(ledger) -> None:
    one, two = ledger.cli.run("verify", "--json"), ledger.cli.run("verify", "--jobs", 2, "--json")

    assert 0 == two.exit_code, two.output
    assert last(one) == last(two)


def test_two_processes_name_what_one_names(database, engine, cli) -> None:
    add_tenants(database)
    record(engine, *(event("acme", f"s-{n % 5}", f"e-{n}") for n in range(20)))
    with database.connect() as conn:
        conn.execute("UPDATE content SET body = 'x' WHERE seq = 1")
        conn.execute("UPDATE chain SET seq = 7 WHERE subject = 's-0'")
    one, two = (cli.owner.run("verify", "--json", "--jobs", jobs) for jobs in (1, 2))

    assert (1, 1) == (one.exit_code, two.exit_code)
    assert 6 == last(one)["faults"]
    assert sorted(one.stdout.splitlines()) == sorted(two.stdout.splitlines())


ENVELOPE_OF_NOTHING = """
    CREATE OR REPLACE FUNCTION entry_envelope(
      chain_id uuid, seq bigint, prev_hash bytea, tenant text, at bigint, kind text, pc bytea)
    RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN ''::bytea"""

PROTECTIONS = [
    ("ALTER TABLE entry DISABLE TRIGGER append_only", "the trigger append_only of entry is not always enabled"),
    ("ALTER TABLE entry ENABLE TRIGGER entry_link", "the trigger entry_link of entry is not always enabled"),
    ("DROP TRIGGER append_only_whole ON entry", "the trigger append_only_whole of entry is missing"),
    ("DROP TRIGGER dense ON leaf", "the trigger dense of leaf is missing"),
    ("DROP TABLE anchor", "the trigger append_only of anchor is missing"),
    ("ALTER TABLE log_key DISABLE TRIGGER only_retires", "the trigger only_retires of log_key is not always enabled"),
    ("ALTER TABLE entry DROP CONSTRAINT entry_tenant_check", "the constraint entry_tenant_check of entry is missing"),
    (
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "the trigger append_only of entry does not run refuse() as the migrations made it",
    ),
    ("ALTER TABLE entry DROP CONSTRAINT entry_hash", "the constraint entry_hash of entry is missing"),
    (
        "ALTER TABLE entry DROP CONSTRAINT entry_hash, ADD CONSTRAINT entry_hash CHECK (true)",
        "the constraint entry_hash of entry is not as the migrations made it",
    ),
    ("ALTER TABLE entry DROP CONSTRAINT entry_fingerprint_key", "the constraint entry_fingerprint_key of entry is missing"),
    ("ALTER TABLE chain DROP CONSTRAINT chain_pkey", "the constraint chain_pkey of chain is missing"),
    (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'entry_fingerprint_key'::regclass",
        "the constraint entry_fingerprint_key of entry is missing, not valid, or its index is not in use",
    ),
    ("GRANT UPDATE ON entry TO waxseal_writer", "waxseal_writer may UPDATE entry"),
    ("GRANT DELETE ON content TO PUBLIC", "waxseal_writer may DELETE content"),
    ("GRANT UPDATE ON chain TO waxseal_writer", "waxseal_writer may UPDATE chain"),
    ("GRANT UPDATE (hash) ON entry TO PUBLIC", "waxseal_writer may UPDATE(hash) entry"),
    ("GRANT UPDATE ON entry TO test_worker", "test_worker may UPDATE entry"),
    ("GRANT INSERT ON leaf TO waxseal_writer", "waxseal_writer may INSERT leaf"),
    ("GRANT EXECUTE ON FUNCTION erase_content TO PUBLIC", "waxseal_writer may EXECUTE function erase_content"),
    ("GRANT pg_write_all_data TO waxseal_writer", "waxseal_writer may DELETE content"),
    ("GRANT waxseal_eraser TO waxseal_writer", "waxseal_writer is a member of waxseal_eraser"),
    ("ALTER ROLE waxseal_writer SUPERUSER", "waxseal_writer has SUPERUSER"),
    ("ALTER ROLE test_worker SUPERUSER", "test_worker, a member of waxseal_writer, has SUPERUSER"),
    (
        ENVELOPE_OF_NOTHING,
        "the function entry_envelope is not as the migrations made it",
    ),
]


@pytest.mark.parametrize(("removal", "told"), PROTECTIONS, ids=[removal[:60] for removal, _ in PROTECTIONS])
def test_a_protection_that_is_missing_or_disabled_is_a_fault(ledger, removal, told) -> None:
    with ledger.engine.connect() as conn:
        before = [fault.detail for fault in missing(conn)]
        run(conn, removal)
        found = [fault.detail for fault in missing(conn)]
        conn.rollback()

    assert [] == before
    assert [detail for detail in found if told in detail]


def test_what_unique_indexes_enforce_is_checked_without_them(ledger) -> None:
    other = of("order-2", seq=None)
    again = "INSERT INTO chain SELECT key, tenant, subject, gen_random_uuid(), -1, NULL FROM chain WHERE " + other
    same = f"UPDATE entry SET fingerprint = (SELECT fingerprint FROM entry WHERE {of(seq=2)}) WHERE {of('order-2', seq=2)}"

    assert {"chain_repeated"} == ledger.kinds(again)
    assert {"fingerprint", "fingerprint_repeated"} == ledger.kinds(same)


def test_what_is_there_twice_is_found_in_one_slice_whatever_chains_it_is_in(ledger) -> None:
    other = of("order-2", seq=None)
    again = "INSERT INTO chain SELECT key, tenant, subject, gen_random_uuid(), -1, NULL FROM chain WHERE " + other
    same = f"UPDATE entry SET fingerprint = (SELECT fingerprint FROM entry WHERE {of(seq=2)}) WHERE {of('order-2', seq=2)}"
    with ledger.engine.connect() as conn:
        run(conn, UNPROTECTED)
        run(conn, same)
        run(conn, again)
        found = [(kind, row.seq) for part in range(30) for kind, row in repeats.found(conn, Scope(part=(part, 30)))]
        conn.rollback()

    assert {("fingerprint_repeated", 2), ("chain_repeated", None)} == set(found)
    assert 1 == found.count(("fingerprint_repeated", 2))


def test_a_tenant_whose_key_is_damaged_is_that_tenants_fault_and_the_others_are_checked(database, engine, cli) -> None:
    add_tenants(database)
    record(engine, event("acme", "order-1", "e-1"), event("other", "order-1", "e-2"))
    database.run("UPDATE tenant SET fingerprint_key = 'x' WHERE name = 'acme'")
    database.run("UPDATE entry SET fingerprint = gen_random_uuid() WHERE false")
    damaged = cli.owner.run("verify", "--json")
    other = cli.owner.run("verify", "--tenant", "other", "--json")

    assert (1, 0) == (damaged.exit_code, other.exit_code), damaged.output
    assert [("acme", "tenant_key")] == [
        (each["tenant"], each["kind"]) for each in map(json.loads, damaged.stdout.splitlines()[:-1])
    ]
