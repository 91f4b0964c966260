"""Private servers: they resume after any failure, run as unprivileged accounts, and leave nothing behind.

That a killed broker comes back on its port with its data is in test_publisher.py.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pika
import psutil
import psycopg
import pytest

from ops.servers.leftovers import end_leftovers
from ops.servers.ports import LOOPBACK
from ops.servers.postgres import configuration
from ops.servers.private import PrivateServers, erase_servers, private_servers
from ops.servers.process_tree import see, wait_until
from ops.servers.state_file import peek
from support.broker import evaluated
from workers.amqp.topology import SETTLE_SECONDS

pytestmark = pytest.mark.usefixtures("durable")

KNOWN = "[application:get_key(App, modules) || App <- %s]."
NOT_LOADED = """
Files = fun(App) -> filelib:wildcard("*.beam", code:lib_dir(App, ebin)) end,
Modules = fun(App) -> [list_to_atom(filename:rootname(File)) || File <- Files(App)] end,
[[Module || Module <- Modules(App), not is_tuple(code:is_loaded(Module))] || App <- %s]."""

HOLD = """
import sys
from pathlib import Path
from ops.servers.private import private_servers
with private_servers(Path(sys.argv[1])) as servers:
    print(servers.postgres_pid, servers.rabbitmq_pid, servers.epmd_pid, servers.database_url, servers.amqp_url, flush=True)
    sys.stdin.read()
"""


def test_both_servers_answer_on_the_loopback_address_only(servers: PrivateServers) -> None:
    listening = {
        connection.laddr.ip
        for pid in (servers.postgres_pid, servers.rabbitmq_pid, servers.epmd_pid)
        for connection in psutil.Process(pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    }

    assert one(servers.database_url, "SELECT 1") == 1
    assert first_in(servers.amqp_url, "answers") is None
    assert listening <= {"127.0.0.1", "::1"}


def test_commits_are_durable_and_texts_are_utf8(servers: PrivateServers) -> None:
    shown = {name: one(servers.database_url, f"SHOW {name}") for name in ("fsync", "synchronous_commit", "data_checksums")}

    assert shown == {"fsync": "on", "synchronous_commit": "on", "data_checksums": "on"}
    assert one(servers.database_url, "SHOW server_encoding") == "UTF8"


def test_whole_pages_are_compressed_by_the_cheapest_method_that_the_server_has(servers: PrivateServers, tmp_path) -> None:
    has = one(servers.database_url, "SELECT 'lz4' = ANY(enumvals) FROM pg_settings WHERE name = 'wal_compression'")
    lacking = tmp_path / "postgres"
    lacking.write_text("#!/bin/sh\nexit 1\n")
    lacking.chmod(0o755)

    assert (one(servers.database_url, "SHOW wal_compression") == "lz4") == has
    assert "wal_compression = on\n" in configuration(tmp_path, tmp_path, 5432)


def test_a_wrong_password_is_refused_by_both(servers: PrivateServers) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(servers.url_for("waxseal", "guess"))
    broker = pika.URLParameters(servers.amqp_url)
    broker.credentials = pika.PlainCredentials("guest", "guest")
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        pika.BlockingConnection(broker)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run servers as somebody else")
def test_servers_of_root_do_not_run_as_root(servers: PrivateServers) -> None:
    for pid in (servers.postgres_pid, servers.rabbitmq_pid, servers.epmd_pid):
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]

        assert 0 not in {uid for member in family for uid in member.uids()}


def test_passwords_are_readable_by_their_owner_only(servers: PrivateServers) -> None:
    folder = peek(servers.data).folder
    secrets = [
        servers.data / "servers.json",
        folder / "rabbitmq" / "advanced.config",
        folder / "rabbitmq" / ".erlang.cookie",
    ]

    assert [path.stat().st_mode & 0o077 for path in secrets] == [0, 0, 0]


def test_the_broker_has_loaded_its_own_modules_and_of_other_applications_what_it_calls(servers: PrivateServers) -> None:
    own, others = "[rabbit, rabbit_common, kernel, ra]", "[compiler, xmerl, inets, ssl, observer_cli]"

    assert "[[],[],[],[]]" == evaluated(servers, NOT_LOADED % own).replace(" ", "")
    known = evaluated(servers, KNOWN % others).replace(" ", "")
    if evaluated(servers, "code:is_loaded(khepri).") == "false":
        assert "[{ok,[]},{ok,[]},{ok,[]},{ok,[]},{ok,[]}]" == known
    else:
        assert "{ok,[]}" not in known, "RabbitMQ 4 needs the lists of all modules"
    assert "false" == evaluated(servers, 'os:getenv("ERL_AFLAGS").'), "what the broker starts would do the same"


def test_a_second_start_on_the_same_folder_is_refused_in_one_line(servers: PrivateServers) -> None:
    from ops.errors import AlreadyRunning

    with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"), private_servers(servers.data):
        pass


def test_a_killed_postgres_comes_back_on_its_port_with_its_data(servers: PrivateServers) -> None:
    before = servers.database_url
    execute(before, "CREATE TABLE kept (n int)")
    os.kill(servers.postgres_pid, signal.SIGKILL)
    servers.restart_postgres()

    assert before == servers.database_url
    assert one(before, "SELECT count(*) FROM kept") == 0
    execute(before, "DROP TABLE kept")


@dataclass
class Runs:
    """What was seen of servers that ran three times on one folder."""

    folder: Path
    elsewhere: Path | None  # where their data was, if not in the folder
    ports: list[dict[str, int]]  # of each run
    left: list[int]  # how many processes were left after the first and after the third run
    ended: bool  # whether the servers of the third run ended when only the process that had started them was killed
    rows: object  # how many rows the third run found in the table of the first
    message: bytes | None  # what it found in the queue of the first


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Runs servers on a folder that they cannot enter when root starts them: pytest's are its user's only.

    The first run ends cleanly. A port of its is taken when the second begins, in which everything is killed at once.
    """
    folder = tmp_path_factory.mktemp("closed")
    try:
        yield run_three_times(folder)
    finally:
        erase_servers(folder)


def run_three_times(folder: Path) -> Runs:
    with private_servers(folder) as first:
        execute(first.database_url, "CREATE TABLE kept (n int)")
        publish(first.amqp_url, "kept", b"1")
    known = peek(folder)
    ports, left = [dict(known.ports)], [end_leftovers(*known.workplaces)]

    with taken(ports[0]["postgres"]), in_another_process(folder) as second:
        ports.append(dict(peek(folder).ports))
        second.process.kill()
        for pid in second.pids:
            os.kill(pid, signal.SIGKILL)

    with in_another_process(folder) as third:
        ports.append(dict(peek(folder).ports))
        rows, message = one(third.database_url, "SELECT count(*) FROM kept"), first_in(third.amqp_url, "kept")
        running = [see(pid) for pid in third.pids]
        third.process.kill()
        ended = wait_until(lambda: not any(server.alive() for server in running), 60)
    left.append(end_leftovers(*known.workplaces))
    return Runs(folder, known.elsewhere, ports, left, ended, rows, message)


@pytest.mark.slow
def test_data_survives_a_clean_stop_a_taken_port_and_the_death_of_everything(runs: Runs) -> None:
    first, second, _ = runs.ports

    assert first["postgres"] != second["postgres"]
    assert first["amqp"] == second["amqp"]
    assert (0, b"1") == (runs.rows, runs.message)


@pytest.mark.slow
def test_servers_end_with_the_process_that_started_them_even_when_it_is_killed(runs: Runs) -> None:
    assert runs.ended
    assert [0, 0] == runs.left


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root's folders are closed to the servers")
def test_a_folder_that_the_servers_cannot_enter_gets_their_data_elsewhere_and_finds_it_again(runs: Runs) -> None:
    assert (runs.elsewhere / "postgres" / "data" / "PG_VERSION").exists()
    assert not (runs.folder / "postgres").exists()
    assert 0 == runs.rows
    erase_servers(runs.folder)
    assert not runs.elsewhere.exists()


def one(database_url: str, query: str) -> object:
    with psycopg.connect(database_url) as conn:
        return conn.execute(query).fetchone()[0]


def execute(database_url: str, statement: str) -> None:
    with psycopg.connect(database_url) as conn:
        conn.execute(statement)


def publish(amqp_url: str, queue: str, body: bytes) -> None:
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        connection.sleep(SETTLE_SECONDS)
        channel.basic_publish("", queue, body, mandatory=True)


def first_in(amqp_url: str, queue: str) -> bytes | None:
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
        channel = connection.channel()
        channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        return channel.basic_get(queue)[2]


@contextmanager
def taken(port: int) -> Iterator[None]:
    """Listens on the port, if nobody else does."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections to the former server linger
        with suppress(OSError):
            listener.bind((LOOPBACK, port))
            listener.listen()
        yield


@dataclass
class Holder:
    """A process that runs servers until it ends."""

    process: subprocess.Popen[str]
    pids: list[int]  # of PostgreSQL, RabbitMQ and epmd
    database_url: str
    amqp_url: str


@contextmanager
def in_another_process(folder: Path) -> Iterator[Holder]:
    """Runs servers on the folder in a process that ends with the block, and with us."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        *pids, database_url, amqp_url = process.stdout.readline().split()
        yield Holder(process, [int(pid) for pid in pids], database_url, amqp_url)
