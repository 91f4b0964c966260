"""`waxseal migrate`, and that no process starts on a schema of another version."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from ops import process_roles
from ops.migrate import migrate
from ops.runtime.schema_check import known
from ops.servers.private import PrivateServers
from support.cli import Cli
from support.ledger import old_schema
from support.waiting import wait_for

pytestmark = pytest.mark.usefixtures("durable")

WORKERS = {"deliver": "delivery", "mail-pull": "mail.pull", "mail-idle": "mail.idle"}
COMMANDS = (
    ("status",),
    ("timeline", "acme", "order-1"),
    ("deliveries", "acme"),
    ("dead", "list"),
    ("verify",),
    ("undelivered", "acme"),
    ("audit",),
    ("endpoint", "list", "acme"),
    ("mailbox", "list"),
)
DAMAGES = {
    "older": "UPDATE alembic_version SET version_num = '0001'",
    "newer": "UPDATE alembic_version SET version_num = '9999'",
    "unknown": "UPDATE alembic_version SET version_num = 'abcd'",
    "two rows": "INSERT INTO alembic_version VALUES ('0001')",
    "no rows": "DELETE FROM alembic_version",
    "no table": "DROP TABLE alembic_version",
}
SAID = {
    "older": "is at 0001, this waxseal needs",
    "newer": "is at 9999, this waxseal knows only",
    "unknown": "'abcd', which is no version of Waxseal",
    "two rows": "holds 0001, ",
    "no rows": "holds nothing",
    "no table": "not the table alembic_version",
}


@pytest.fixture
def damaged(database: Any) -> Callable[[str], Any]:
    def damage(how: str) -> Any:
        with database.connect() as conn:
            conn.execute(DAMAGES[how])
        return database

    return damage


@pytest.fixture(scope="module")
def old(shared_database: Any) -> Any:
    with shared_database.connect() as conn:
        conn.execute(DAMAGES["older"])
    return shared_database


@pytest.fixture
def behind(servers: PrivateServers) -> Iterator[str]:
    """The URL of an empty database."""
    name = "migrating"
    with psycopg.connect(servers.database_url, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}")
    yield make_url(servers.database_url).set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(servers.database_url, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


def is_one_line(said: str) -> bool:
    return 1 == said.count("\n") and said.startswith("Error: ")


@pytest.mark.parametrize("command", process_roles.WORKERS)
def test_no_process_begins_on_another_schema(old, servers, monkeypatch, tmp_path, command: str) -> None:
    begun: list[object] = []
    monkeypatch.setattr(f"workers.{WORKERS.get(command, command)}.worker.run", lambda settings: begun.append(settings) or 0)

    ended = Cli(old, servers.amqp_url, log_files=tmp_path, log_origin="ledger.example").run(command)

    assert (2, []) == (ended.exit_code, begun)
    assert is_one_line(ended.output)
    assert "run `waxseal migrate`" in ended.output


@pytest.mark.parametrize("how", DAMAGES)
def test_no_command_works_on_another_schema(damaged, how: str, tmp_path) -> None:
    (tmp_path / "waxseal.yaml").write_text("tenants: [{name: acme}]\n")
    database = damaged(how)
    ended = [Cli(database).owner.run(*command) for command in (*COMMANDS, ("apply", tmp_path / "waxseal.yaml"))]

    assert {2} == {each.exit_code for each in ended}, [each.output for each in ended]
    assert all(SAID[how] in each.output and is_one_line(each.output) for each in ended), [each.output for each in ended]


@pytest.mark.parametrize("how", [how for how in DAMAGES if how != "older"])
def test_migrate_says_in_one_line_why_it_cannot_help(damaged, how: str) -> None:
    ended = Cli(damaged(how)).owner.run("migrate")

    assert 2 == ended.exit_code
    assert is_one_line(ended.output)
    assert SAID[how] in ended.output


def test_a_process_that_began_without_a_database_ends_when_it_turns_out_to_be_another(damaged, servers: PrivateServers) -> None:
    database = damaged("newer")
    os.kill(servers.postgres_pid, signal.SIGSTOP)
    try:
        with Cli(database, servers.amqp_url).process("relay") as process:
            wait_for(lambda: "started" in process.stderr.readline(), 60)
            os.kill(servers.postgres_pid, signal.SIGCONT)
            _, err = process.communicate(timeout=60)
    finally:
        os.kill(servers.postgres_pid, signal.SIGCONT)

    assert 2 == process.returncode
    assert SAID["newer"] in err.splitlines()[-1]


def test_migrate_gives_way_and_says_to_whom(behind: str) -> None:
    old_schema.make(behind, "0003")
    told: list[str] = []
    with ThreadPoolExecutor(1) as pool, psycopg.connect(behind, application_name="reporting") as reader:
        reader.execute("SELECT count(*) FROM dead_letter")
        pid = reader.info.backend_pid
        migrating = pool.submit(migrate, behind, told.append)
        waited = 0.0
        while not told:  # other sessions read meanwhile
            began = time.monotonic()
            with psycopg.connect(behind) as other:
                other.execute("SELECT count(*) FROM dead_letter")
            waited = max(waited, time.monotonic() - began)
            assert not migrating.done()
            time.sleep(0.05)
        reader.rollback()
        changed = migrating.result(60)

    assert changed
    assert f"waits for pid {pid} (" in told[0]
    assert "reporting, idle in transaction" in told[0]
    assert "SELECT count(*) FROM dead_letter" in told[0]
    assert waited < 10
    with psycopg.connect(behind) as conn:
        assert [(known()[-1],)] == conn.execute("SELECT version_num FROM alembic_version").fetchall()


def test_migrate_ends_when_nobody_gives_way_to_it(database: Any) -> None:
    with database.connect() as conn:
        conn.execute("UPDATE alembic_version SET version_num = '0003'")
        conn.execute("DROP TABLE mail_document")
        before = conn.execute("SELECT count(*) FROM pg_indexes").fetchone()
    with psycopg.connect(database.url) as reader:
        pid = reader.info.backend_pid
        reader.execute("SELECT count(*) FROM dead_letter")
        ended = Cli(database).owner.run("migrate", "--wait", "1")

    assert 2 == ended.exit_code
    assert f"SELECT pg_terminate_backend({pid});" in ended.output.splitlines()[-1]
    assert "the schema was not changed" in ended.output
    assert [before] == database.rows("SELECT count(*) FROM pg_indexes")
    assert [("0003",)] == database.rows("SELECT version_num FROM alembic_version")


def test_two_migrations_at_once_wait_for_each_other(behind: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        changed = list(pool.map(migrate, [behind, behind]))

    assert [False, True] == sorted(changed)
