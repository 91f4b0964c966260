"""Entries that version 0010 stored are copied into columns: all of them or none, and a copy that was killed is continued."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from ops.migrate import StillRunning, Unfit, migrate
from ops.migrations import entry_copy
from ops.runtime.db import make_engine, transaction
from ops.runtime.schema_check import WrongSchema, check_engine, known
from ops.servers.private import PrivateServers
from pipeline.ledger.verifying.verify import verify
from pipeline.store.ledger.scan import Scope
from schemas.ledger.fault import Fault, Verified
from support.blobs import NO_BLOBS
from support.ledger import old_schema

KEYS = {"acme": old_schema.KEY}

#: What the rows were, apart from the envelope's parts.
ROWS = "SELECT chain_id, seq, prev_hash, hash, tenant, fingerprint FROM {} ORDER BY 1, 2"


@pytest.fixture
def old(servers: PrivateServers) -> Iterator[str]:
    """The URL of a database of version 0010 with five chains of 40 entries."""
    with psycopg.connect(servers.database_url, autocommit=True) as conn:
        conn.execute("CREATE DATABASE copying")
    url = make_url(servers.database_url).set(database="copying").render_as_string(hide_password=False)
    old_schema.make(url, "0010")
    old_schema.fill_0010(url, 5, 40)
    yield url
    with psycopg.connect(servers.database_url, autocommit=True) as conn:
        conn.execute("DROP DATABASE copying WITH (FORCE)")


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as conn:
        return conn.execute(query).fetchall()


def verified(url: str) -> tuple[Verified, list[Fault]]:
    faults: list[Fault] = []
    engine = make_engine(url)
    with transaction(engine) as conn:
        found = verify(conn, Scope(), KEYS, NO_BLOBS.get, faults.append)
    engine.dispose()
    return found, faults


def test_every_entry_is_there_afterwards_as_it_was_and_the_ledger_verifies(old, monkeypatch) -> None:
    monkeypatch.setattr(entry_copy, "BATCH", 64)
    before, told = rows(old, ROWS.format("entry")), []

    assert migrate(old, told.append)

    assert before == rows(old, ROWS.format("entry"))
    assert (Verified(200, 5, 0), []) == verified(old)
    assert [("r", "event", 1767225600000000)] == rows(
        old, "SELECT DISTINCT CAST(relkind AS text), kind, min(at) OVER () FROM pg_class, entry WHERE relname = 'entry'"
    )
    assert [(known()[-1], None)] == rows(old, "SELECT version_num, to_regclass('entry_v1') FROM alembic_version")
    assert "compared 200 of 200 entries" == told[-1]
    assert [(True,)] == rows(old, "SELECT has_table_privilege('waxseal_writer', 'entry', 'INSERT')")
    pending = "SELECT chain_ids[1], tenant, firsts[1], counts[1] - 1, at FROM log_pending ORDER BY 1"
    assert rows(old, "SELECT chain_id, tenant, 0, seq, 1767225600000000 FROM chain ORDER BY 1") == rows(old, pending)
    assert not migrate(old)


def migrate_and_die(url: str, batches: int, where: str) -> None:
    """Run by a forked process: is killed after some batches, either before or after the COMMIT of the last one."""
    done = 0
    copy_batch, begin_change = entry_copy.copy_batch, entry_copy.pending

    def copied(conn: Any) -> int:
        nonlocal done
        count = copy_batch(conn)
        done += 1
        if where == "before the commit" and done > batches:
            os.kill(os.getpid(), signal.SIGKILL)
        return count

    def pending(conn: Any) -> bool:
        if where == "after the commit" and done > batches:
            os.kill(os.getpid(), signal.SIGKILL)
        return begin_change(conn)

    entry_copy.copy_batch, entry_copy.pending = copied, pending
    entry_copy.BATCH = 30  # type: ignore[misc]
    migrate(url)


@pytest.mark.parametrize("where", ["before the commit", "after the commit"])
def test_a_copy_that_is_killed_again_and_again_is_continued_and_no_process_starts_before_its_end(old, where) -> None:
    before, copied = rows(old, ROWS.format("entry")), []
    context = multiprocessing.get_context("fork")
    for turn in range(4):
        process = context.Process(target=migrate_and_die, args=(old, turn % 2, where), daemon=True)
        process.start()
        process.join(60)
        assert -signal.SIGKILL == process.exitcode
        copied.append(rows(old, "SELECT count(*) FROM entry")[0][0])
        engine = make_engine(old)
        with pytest.raises(WrongSchema, match="waxseal migrate"):
            check_engine(engine)
        engine.dispose()
    assert sorted(copied) == copied
    assert 0 < copied[-1] < 200
    assert [(False,)] == rows(old, "SELECT has_table_privilege('waxseal_writer', 'entry', 'INSERT')")

    assert migrate(old)

    assert before == rows(old, ROWS.format("entry"))
    assert (Verified(200, 5, 0), []) == verified(old)


UNPROTECTED = """
    ALTER TABLE entry DISABLE TRIGGER ALL;
    ALTER TABLE entry DROP CONSTRAINT entry_hash;
    ALTER TABLE entry DROP CONSTRAINT entry_link;
    ALTER TABLE entry DROP CONSTRAINT entry_first;"""
OF = "WHERE seq = 7 AND chain_id = (SELECT chain_id FROM chain WHERE subject = 'order-3')"

FAULTS = {
    f"UPDATE entry SET envelope = 'x' {OF}": "entry 7 (",
    f"UPDATE entry SET envelope = '\\xff00' {OF}": "envelope is not the one",
    f"UPDATE entry SET tenant = 'other' {OF}": "envelope is not the one",
    f"UPDATE entry SET envelope = envelope || '\\x0a' {OF}": "envelope is not the one",
    f"UPDATE entry SET envelope = overlay(envelope PLACING 'E' FROM position('event\",\"pc' IN envelope)) {OF}": "entry 7",
    f"UPDATE entry SET hash = sha256('x') {OF}": "hash is not",
    f"DELETE FROM entry {OF}": "entry 8 (",
    f"UPDATE entry SET prev_hash = NULL {OF}": "entry 7 (",
    "UPDATE chain SET seq = 38 WHERE subject = 'order-3'": "head is at 38, its last entry at 39",
    "UPDATE chain SET hash = 'x' WHERE subject = 'order-3'": "head is at 39, its last entry at 39",
    f"DELETE FROM entry {OF.replace('seq = 7', 'true')}": "head is at 39, its last entry at none",
    "DELETE FROM chain WHERE subject = 'order-3'": "no row of its chain",
}


def test_what_could_not_be_copied_as_it_is_is_named(old, monkeypatch) -> None:
    monkeypatch.setattr(entry_copy, "BATCH", 64)
    engine = make_engine(old)
    for edit, said in FAULTS.items():
        with engine.connect() as conn:
            conn.exec_driver_sql(UNPROTECTED)
            assert conn.exec_driver_sql(edit).rowcount
            conn.connection.driver_connection.execute((old_schema.VERSIONS / "0011_entry_columns.sql").read_text())
            with pytest.raises(entry_copy.NotTheSame) as refused:
                entry_copy.check(conn)
            conn.rollback()
        assert said in str(refused.value), edit
        assert "/order-3" in str(refused.value) or "DELETE FROM chain" in edit
    engine.dispose()


def test_nothing_is_begun_while_a_process_is_connected(old) -> None:
    with psycopg.connect(old, autocommit=True) as owner:
        owner.execute("DROP ROLE IF EXISTS test_old_worker")
        owner.execute("CREATE ROLE test_old_worker LOGIN PASSWORD 'worker' IN ROLE waxseal_writer")
    url = make_url(old).set(username="test_old_worker", password="worker").render_as_string(hide_password=False)
    with psycopg.connect(url, application_name="waxseal") as worker:
        with pytest.raises(StillRunning, match=rf"pid {worker.info.backend_pid} \(test_old_worker\)"):
            migrate(old)
        assert (200,) == worker.execute("SELECT count(envelope) FROM entry").fetchone()

    assert migrate(old)


def test_a_ledger_that_could_not_be_copied_as_it_is_is_refused_and_left_alone(old) -> None:
    with psycopg.connect(old) as conn:
        conn.execute(UNPROTECTED)
        conn.execute(f"UPDATE entry SET envelope = 'x' {OF}")
    before = rows(old, "SELECT * FROM entry ORDER BY chain_id, seq")

    with pytest.raises(Unfit, match=r"acme/order-3 entry 7 \(chain [0-9a-f]{32}\): its envelope"):
        migrate(old)

    assert before == rows(old, "SELECT * FROM entry ORDER BY chain_id, seq")
    assert [("0010", None)] == rows(old, "SELECT version_num, to_regclass('entry_v1') FROM alembic_version")


def test_an_entry_that_is_missing_after_the_copy_keeps_the_old_table(old, monkeypatch) -> None:
    copy_batch: Callable[[Any], int] = entry_copy.copy_batch

    def lossy(conn: Any) -> int:
        if not (copied := copy_batch(conn)):
            return 0
        conn.exec_driver_sql("ALTER TABLE entry DISABLE TRIGGER append_only")
        conn.exec_driver_sql(
            "DELETE FROM entry WHERE (chain_id, seq) = (SELECT chain_id, seq FROM entry ORDER BY 1, 2 LIMIT 1)"
        )
        return copied

    monkeypatch.setattr(entry_copy, "copy_batch", lossy)
    with pytest.raises(Unfit, match="there were 200 entries, and 199 have been copied"):
        migrate(old)

    assert [(200,)] == rows(old, "SELECT count(*) FROM entry_v1")
