"""A damaged page of the database: only what needs it is set aside, or ingest waits if everything does."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, make_url

from ops.runtime.blobs import Blobs
from ops.runtime.db import make_engine, transaction
from ops.servers.private import PrivateServers
from pipeline.store.dead_letters import dead_letters
from schemas.message import Message
from support.sessions import end_connections
from support.waiting import wait_for
from workers.ingest import chains_aside
from workers.ingest.writer import Writer

PAGE = 8192  # bytes

Damage = Callable[[str], "tuple[Any, Callable[[], None]]"]


def messages(run: str, numbers: Sequence[int]) -> list[Message]:
    """A message for the chain of each number."""
    return [Message("acme.orders", b"{}", message_id=f"{run}-{n}", headers={"subject": f"chain-{n}"}) for n in numbers]


def buried(database: Any) -> list[tuple]:
    return database.rows("SELECT reason, event_id FROM dead_letter WHERE state = 'open' ORDER BY id")


def recorded(database: Any) -> int:
    return database.rows("SELECT count(*) FROM entry")[0][0]


@contextmanager
def writing(database: Any, engine: Engine, blobs: Path) -> Iterator[Writer]:
    writer = Writer(engine, database.vault, Blobs(str(blobs)), lambda: False)
    writer.load()
    yield writer
    writer.close()
    engine.dispose()


def write(writer: Writer, batch: Sequence[Message]) -> None:
    writer.write([writer.judge(each) for each in batch])


@pytest.fixture
def torn(servers: PrivateServers, database: Any) -> Iterator[Damage]:
    """Copies the database and damages the first page of a table's file; returns the copy, and what mends the page.

    Postgres has no page of a new copy in its memory, and keeps none whose checksum is wrong.
    """
    name = f"{make_url(database.url).database}_torn"

    def on_copy(url: str) -> str:
        return make_url(url).set(database=name).render_as_string(hide_password=False)

    copies = []

    def damage(table: str) -> tuple[Any, Callable[[], None]]:
        end_connections(database)
        database.close()
        with psycopg.connect(servers.database_url, autocommit=True) as conn:
            conn.execute(f"CREATE DATABASE {name} TEMPLATE {make_url(database.url).database} STRATEGY file_copy")
        copies.append(copy := replace(database, url=on_copy(database.url), worker_url=on_copy(database.worker_url)))
        where = copy.rows("SELECT current_setting('data_directory'), pg_relation_filepath(%s::regclass)", table)[0]
        path = Path(*where)
        sound = path.read_bytes()[:PAGE]
        overwrite(path, sound[:4096] + bytes(byte ^ 0xFF for byte in sound[4096:4296]) + sound[4296:])
        return copy, lambda: overwrite(path, sound)

    yield damage
    for copy in copies:
        copy.close()
    with psycopg.connect(servers.database_url, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def overwrite(path: Path, page: bytes) -> None:
    with path.open("r+b") as file:
        file.write(page)


@pytest.fixture
def configured(database: Any) -> Any:
    database.add_tenant("acme")
    database.add_source("orders", "amqp")
    return database


def test_messages_on_a_torn_page_are_set_aside_and_all_others_recorded(
    configured, engine, torn, tmp_path, monkeypatch, cli
) -> None:
    monkeypatch.setattr(chains_aside, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(chains_aside, "LOOK_SHARE", 1e9)
    few = range(0, 200, 5)  # so few that each page has room for their heads to move
    with writing(configured, engine, tmp_path) as writer:
        write(writer, messages("old", range(200)))
    configured.run("VACUUM FULL chain")
    torn_page = "SELECT subject FROM chain WHERE (ctid::text::point)[0] = 0"
    lost = {int(subject.partition("-")[2]) for (subject,) in configured.rows(torn_page)} & {*few}
    assert 0 < len(lost) < len(few)

    damaged, mend = torn("chain")
    worker = make_engine(damaged.worker_url, pool_size=2)
    tries: list[int] = []
    with writing(damaged, worker, tmp_path) as writer:
        commit = writer._commit
        monkeypatch.setattr(writer, "_commit", lambda batch: (tries.append(len(batch)), commit(batch)))
        write(writer, messages("new", few))
        write(writer, messages("late", few))
        aside, added = buried(damaged), recorded(damaged) - 200
        status, verify = (cli.but(database_url=damaged.worker_url).run(command) for command in ("status", "verify"))
        mend()
        with transaction(worker) as conn:
            kept = dead_letters.messages(conn, [id_ for (id_,) in damaged.rows("SELECT id FROM dead_letter ORDER BY id")])
        write(writer, list(kept.values()))

    assert [40, 40, 40, 2 * len(lost)] == tries
    assert [("chain_broken", f"{run}-{n}") for run in ("new", "late") for n in sorted(lost)] == aside
    assert 80 - len(aside) == added
    ((kind, tenant, detail),) = damaged.rows("SELECT kind, tenant, detail FROM operator_event")
    assert ("chain_broken", "acme") == (kind, tenant)
    assert "invalid page in block 0" in detail
    assert (0, 2) == (status.exit_code, verify.exit_code)
    assert f"{len(aside)} messages wait" in status.stdout
    assert "invalid page in block 0" in status.stdout
    assert "Postgres cannot read its files" in verify.output
    assert len(aside) == len(buried(damaged))  # as before: none was set aside again
    assert 280 == recorded(damaged)
    assert 0 == cli.but(database_url=damaged.worker_url).run("verify").exit_code


def test_ingest_waits_while_no_message_can_be_recorded(configured, engine, torn, tmp_path, monkeypatch) -> None:
    with writing(configured, engine, tmp_path) as writer:
        write(writer, messages("old", range(3)))
    configured.run("VACUUM FULL content")  # its first page is its last one, to which rows are added
    damaged, mend = torn("content")
    with writing(damaged, make_engine(damaged.worker_url, pool_size=2), tmp_path) as writer:
        tries: list[int] = []
        commit = writer._commit
        monkeypatch.setattr(writer, "_commit", lambda batch: (tries.append(len(batch)), commit(batch)))
        thread = threading.Thread(target=write, args=[writer, messages("new", range(10, 20))])
        thread.start()
        try:
            wait_for(lambda: tries.count(1) >= 3)  # more often than a message that is itself at fault
            trouble = writer.trouble
            waiting = buried(damaged)
        finally:
            mend()
            thread.join(30)

    assert not thread.is_alive()
    assert "invalid page in block 0" in (trouble or "")
    assert ([], []) == (waiting, buried(damaged))
    assert writer.trouble is None
    assert 13 == recorded(damaged)
