"""Private servers: they resume after any failure, run as unprivileged accounts, and leave nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pika
import psutil
import psycopg
import pytest

from ops.servers.leftovers import end_leftovers
from ops.servers.private import PrivateServers, erase_servers, private_servers
from ops.servers.process_tree import see, wait_until
from ops.servers.state_file import peek

pytestmark = pytest.mark.usefixtures("durable")

HOLD = """
import sys, time
from pathlib import Path
from ops.servers.private import private_servers
with private_servers(Path(sys.argv[1])) as servers:
    print(servers.postgres_pid, servers.rabbitmq_pid, servers.epmd_pid, flush=True)
    time.sleep(120)
"""


def test_both_servers_answer_on_the_loopback_address_only(servers: PrivateServers) -> None:
    listening = {
        connection.laddr.ip
        for pid in (servers.postgres_pid, servers.rabbitmq_pid, servers.epmd_pid)
        for connection in psutil.Process(pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    }

    assert one(servers, "SELECT 1") == 1
    assert first_in(servers, "answers") is None
    assert listening <= {"127.0.0.1", "::1"}


def test_commits_are_durable_and_texts_are_utf8(servers: PrivateServers) -> None:
    shown = {name: one(servers, f"SHOW {name}") for name in ("fsync", "synchronous_commit", "data_checksums")}

    assert shown == {"fsync": "on", "synchronous_commit": "on", "data_checksums": "on"}
    assert one(servers, "SHOW server_encoding") == "UTF8"


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


def test_a_second_start_on_the_same_folder_is_refused_in_one_line(servers: PrivateServers) -> None:
    from ops.errors import AlreadyRunning

    with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"), private_servers(servers.data):
        pass


def test_a_killed_server_comes_back_on_its_port_with_its_data(servers: PrivateServers) -> None:
    publish(servers, "survives", b"kept")
    before = servers.database_url, servers.amqp_url
    for pid in (servers.postgres_pid, servers.rabbitmq_pid):
        os.kill(pid, signal.SIGKILL)
    servers.restart_postgres()
    servers.restart_rabbitmq()

    assert (servers.database_url, servers.amqp_url) == before
    assert one(servers, "SELECT 1") == 1
    assert first_in(servers, "survives") == b"kept"


@pytest.mark.slow
def test_data_survives_a_clean_stop_a_taken_port_and_the_death_of_everything(data_folder: Path) -> None:
    with private_servers(data_folder) as first:
        execute(first, "CREATE TABLE kept (n int)")
        publish(first, "kept", b"1")
        ports = dict(peek(data_folder).ports)
    assert end_leftovers(*peek(data_folder).workplaces) == 0

    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections to the former server linger
        taken.bind(("127.0.0.1", ports["postgres"]))
        taken.listen()
        holder, pids = hold_in_another_process(data_folder)
        moved = dict(peek(data_folder).ports)
        os.kill(holder.pid, signal.SIGKILL)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        holder.wait()
    assert moved["postgres"] != ports["postgres"]
    assert moved["amqp"] == ports["amqp"]

    with private_servers(data_folder) as third:
        assert one(third, "SELECT count(*) FROM kept") == 0
        assert first_in(third, "kept") == b"1"


@pytest.mark.slow
def test_servers_end_with_the_process_that_started_them_even_when_it_is_killed(data_folder: Path) -> None:
    holder, pids = hold_in_another_process(data_folder)
    seen = [see(pid) for pid in pids]
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()

    assert wait_until(lambda: not any(one.alive() for one in seen), 20)
    assert end_leftovers(*peek(data_folder).workplaces) == 0


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root's folders are closed to the servers")
def test_a_folder_that_the_servers_cannot_enter_gets_their_data_elsewhere_and_finds_it_again(data_folder: Path) -> None:
    data_folder.chmod(0o700)
    with private_servers(data_folder) as first:
        execute(first, "CREATE TABLE kept (n int)")
        elsewhere = peek(data_folder).elsewhere
    with private_servers(data_folder) as second:
        found = one(second, "SELECT count(*) FROM kept")
    erase_servers(data_folder)

    assert found == 0
    assert not (data_folder / "postgres").exists()
    assert not elsewhere.exists()


def one(servers: PrivateServers, query: str) -> object:
    with psycopg.connect(servers.database_url) as conn:
        return conn.execute(query).fetchone()[0]


def execute(servers: PrivateServers, statement: str) -> None:
    with psycopg.connect(servers.database_url) as conn:
        conn.execute(statement)


def publish(servers: PrivateServers, queue: str, body: bytes) -> None:
    with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        # RabbitMQ writes down a new quorum queue's name half a second late; killed before that, it forgets the queue.
        time.sleep(1)
        channel.basic_publish("", queue, body, mandatory=True)


def first_in(servers: PrivateServers, queue: str) -> bytes | None:
    with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
        channel = connection.channel()
        channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        return channel.basic_get(queue)[2]


def hold_in_another_process(folder: Path) -> tuple[subprocess.Popen, list[int]]:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    return holder, [int(pid) for pid in holder.stdout.readline().split()]
