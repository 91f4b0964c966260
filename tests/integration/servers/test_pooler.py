"""PgBouncer in transaction mode, before all connections but those that listen, lock or have options of their own."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, make_url
from sqlalchemy.exc import OperationalError

from ops.runtime.db import make_engine
from ops.servers.accounts import own_file, own_folder
from ops.servers.ports import listens
from ops.servers.private import PrivateServers
from support.pages import blocks
from support.queues import emptied
from support.sending import SECRET
from support.waiting import wait_for
from workers.commands.demo_publisher import Published, publish

USER = "test_pooled"
CONFIGURATION = """\
[databases]
* = host=127.0.0.1 port={postgres}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
admin_users = {user}
pool_mode = transaction
default_pool_size = 3
"""


@dataclass(frozen=True)
class Pooler:
    """`url` leads through the pooler, `direct` past it, with the same login."""

    url: str
    direct: str

    def show(self, what: str) -> list[dict[str, object]]:
        url = make_url(self.url).set(database="pgbouncer").render_as_string(hide_password=False)
        with closing(psycopg.connect(url, autocommit=True, row_factory=psycopg.rows.dict_row)) as conn:
            return conn.execute(f"SHOW {what}").fetchall()


@pytest.fixture
def pooler(servers: PrivateServers, database) -> Iterator[Pooler]:
    direct = make_url(database.url).set(username=USER, password="pooled")
    with psycopg.connect(servers.database_url, autocommit=True) as conn:
        conn.execute(f"CREATE ROLE {USER} LOGIN PASSWORD 'pooled' IN ROLE waxseal_writer, waxseal_sealer")
        with running(servers, direct.port or 0) as port:
            url = direct.set(port=port)
            yield Pooler(url.render_as_string(hide_password=False), direct.render_as_string(hide_password=False))
        wait_for(lambda: not conn.execute(f"SELECT FROM pg_stat_activity WHERE usename = '{USER}'").fetchall())
        conn.execute(f"DROP ROLE {USER}")


@contextmanager
def running(servers: PrivateServers, postgres: int) -> Iterator[int]:
    """A PgBouncer with an account that is not root's, which it refuses."""
    beside = servers.child("postgres")
    folder = own_folder(beside.folder.parent / "pooler", beside.account)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own_file(folder / "users", f'"{USER}" "pooled"\n', beside.account)
    told = CONFIGURATION.format(postgres=postgres, port=port, folder=folder, user=USER)
    own_file(folder / "pgbouncer.ini", told, beside.account)
    account = beside.account
    who = {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}
    program = next(path for path in (Path("/usr/sbin/pgbouncer"), Path("/usr/bin/pgbouncer")) if path.exists())
    process = subprocess.Popen([program, "-q", folder / "pgbouncer.ini"], cwd=folder, stderr=subprocess.DEVNULL, **who)  # type: ignore[call-overload]
    try:
        wait_for(lambda: listens(port))
        yield port
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def repeat_on_another_connection(engine: Engine) -> None:
    """Repeats a statement until the driver would prepare it, and then once more, when the server's connection is taken."""
    with engine.connect() as one, engine.connect() as other:
        for turn in range(8):
            if turn == 7:
                other.exec_driver_sql("SELECT 1")
            one.exec_driver_sql("SELECT 2")
            one.commit()


def test_the_route_runs_through_a_pooler_and_what_listens_past_it(servers, database, channel, pooler, start, sink) -> None:
    engine = make_engine(pooler.url, pool_size=2, pooled=True)
    with pytest.raises(OperationalError, match=f"statement_timeout is 0 s: ALTER ROLE {USER} SET"), engine.connect():
        pass
    for statement in blocks("sql", "ops/docs/connections.md")[0].text.splitlines():
        database.run(statement.replace("waxseal_worker", USER))
    database.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{USER}'")
    repeat_on_another_connection(engine)
    engine.dispose()
    database.add_tenant("acme")
    database.add_source("orders", "amqp")
    database.add_endpoint("billing", sink.url("/200"), SECRET)

    emptied(channel)
    for command in ("ingest", "relay", "deliver", "sequencer", "sealer"):
        start(command, database_url=pooler.url, database_direct_url=pooler.direct, log_every=0.2)
    for number in range(1, 13):  # beyond the repetitions after which the driver prepares a statement
        about = {"message_id": str(number), "type": "order.paid", "content_type": "application/json"}
        publish(servers.amqp_url, [Published("acme.orders", b"{}", about)])
        wait_for(lambda: len(sink.ids()) >= number)  # noqa: B023 - called in this turn

    wait_for(lambda: database.rows("SELECT FROM checkpoint WHERE size = 12"))

    # The relay's ear, and the locks of the collector and of the sealer.
    session = f"""
        SELECT client_port FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE usename = '{USER}'
        AND (CAST(classid AS bigint) << 32 | CAST(objid AS bigint)) IN (24852988478448746, 24852988478448749)
        UNION SELECT client_port FROM pg_stat_activity WHERE usename = '{USER}' AND starts_with(query, 'LISTEN')"""
    wait_for(lambda: len(database.rows(session)) == 3)
    pooled = {each["local_port"] for each in pooler.show("SERVERS")}
    assert set() == pooled & {port for (port,) in database.rows(session)}
    (passed,) = [each for each in pooler.show("STATS_TOTALS") if each["database"] == make_url(pooler.url).database]
    assert passed["xact_count"] > 24
