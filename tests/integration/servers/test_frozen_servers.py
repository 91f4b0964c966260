"""Frozen servers: their kernel still answers for them, so only a client with a deadline of its own notices."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any

import pika
import pytest
from sqlalchemy import text

from ops.runtime.db import make_engine, passes, transaction
from ops.servers.private import PrivateServers
from pipeline.store.copy_binary import copy_rows
from support.cli import Cli
from support.forked import Forked
from support.net.freezing import frozen
from support.net.ports import free_port
from support.net.sink import Sink
from support.sending import SECRET
from support.waiting import lateness_measured, wait_for
from workers.amqp.topology import IN

pytestmark = pytest.mark.usefixtures("durable")

ROLES = ("ingress", "ingest", "relay", "deliver", "mail-pull", "mail-idle", "sequencer", "sealer")
WITHOUT_BROKER = {"mail-idle", "sequencer", "sealer"}  # what works with Postgres alone
LIMIT = 6.0  # seconds without an answer after which a process is not ready, instead of ten, to keep the freezes short
LEASE = 10.0  # seconds; a delivery loaded in vain during a freeze is delivered when its lease ends
IDS = """
    SELECT convert_from(attributes, 'UTF8')::jsonb ->> 'id' FROM content JOIN entry USING (chain_id, seq)
    WHERE kind = 'event'"""
DEADLINE = 25.0  # seconds within which a running statement has failed; 8 s on an idle machine


def ask(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@dataclass
class System:
    """All processes, each on its own port."""

    database: Any
    amqp_url: str
    sink: Sink
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, Forked] = field(default_factory=dict)

    def ask(self, role: str, path: str) -> tuple[int, str]:
        return ask(self.ports[role], path)

    def ready(self, role: str) -> bool:
        try:
            return self.ask(role, "/readyz")[0] == 200
        except OSError:
            return False

    def all_ready(self) -> bool:
        return all(self.ready(role) for role in ROLES)

    def post(self, id_: str) -> int:
        connection = HTTPConnection("127.0.0.1", self.ports["ingress"], timeout=60)
        connection.request("POST", "/in/acme/open", b"{}", {"idempotency-key": id_, "content-type": "application/json"})
        status = connection.getresponse().status
        connection.close()
        return status

    def recorded(self) -> list[str]:
        """The ids of recorded events, without what the ledger records of itself, which goes to no endpoint."""
        return [row[0] for row in self.database.rows(IDS)]


@dataclass
class Freeze:
    """The observations during one freeze."""

    unready: dict[str, dict[str, str]] = field(default_factory=dict)  # role -> its checks when it was first not ready
    after: dict[str, float] = field(default_factory=dict)  # role -> seconds until then
    ready_body: str = ""  # the ingress' readiness, at the end
    alive: dict[str, int] = field(default_factory=dict)
    posted: list[int] = field(default_factory=list)
    ended: dict[str, tuple[Exception | None, float]] = field(default_factory=dict)  # work -> its error, and its seconds
    status: tuple[int, str] = (0, "")
    status_seconds: float = 0.0
    back: float = 0.0  # seconds until all were ready again
    late: float = 0.0  # by how many seconds more anything may have ended on a machine this busy


class Silent:
    """A server that accepts connections and sends nothing."""

    def __init__(self) -> None:
        self.process: Forked
        self.process_port = free_port()
        self.connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self.connections.append(self._listener.accept()[0])

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # closing does not wake the thread that accepts
        for one in (self._listener, *self.connections):
            one.close()


@pytest.fixture(scope="module")
def system(servers: PrivateServers, shared_database: Any, shared_start: Callable[..., Forked]) -> Iterator[System]:
    sink = Sink()
    sink.start()
    shared_database.add_tenant()
    shared_database.add_source("open", "none")
    shared_database.add_source("orders", "amqp")
    shared_database.add_endpoint("sink", sink.url("/200"), SECRET)
    running = System(shared_database, servers.amqp_url, sink, {role: free_port() for role in ROLES})
    running.processes = {role: begin_process(shared_start, role, running.ports[role]) for role in ROLES}
    try:
        wait_for(running.all_ready, 60)
        yield running
    finally:
        sink.stop()


def begin_process(shared_start: Callable[..., Forked], role: str, port: int, **more: object) -> Forked:
    return shared_start(role, unready_after=LIMIT, lease=LEASE, ingress_port=port, metrics_port=port, **more)


@pytest.fixture(scope="module", autouse=True)
def silent(system: System, shared_start: Callable[..., Forked]) -> Iterator[Silent]:
    """An additional ingest process, whose broker accepts connections and sends nothing."""
    one = Silent()
    one.process = begin_process(shared_start, "ingest", one.process_port, amqp_url=f"amqp://127.0.0.1:{one.port}/")
    yield one
    one.process.kill()
    one.process.wait(30)
    one.close()


@contextmanager
def traffic(amqp_url: str) -> Iterator[list[str]]:
    """Publishes with confirms until the block ends; yields the ids of confirmed messages."""
    confirmed: list[str] = []
    stop = threading.Event()

    def publish() -> None:
        number = 0
        with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            while not stop.wait(0.1):
                number += 1
                id_ = f"{threading.get_ident()}-{time.monotonic_ns()}-{number}"
                properties = pika.BasicProperties(message_id=id_, headers={"subject": f"s-{number % 7}"}, delivery_mode=2)
                channel.basic_publish(IN, "acme.orders", b"{}", properties, mandatory=True)
                confirmed.append(id_)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield confirmed
    finally:
        stop.set()
        thread.join(60)


def begin(pool: ThreadPoolExecutor, work: Callable[[], object]) -> Future[tuple[Exception | None, float]]:
    def timed() -> tuple[Exception | None, float]:
        began = time.monotonic()
        try:
            work()
        except Exception as error:  # noqa: BLE001 - tests check which error it is
            return error, time.monotonic() - began
        return None, time.monotonic() - began

    return pool.submit(timed)


def watch(system: System, roles: tuple[str, ...], seen: Freeze, seconds: float) -> None:
    """Records when each of `roles` becomes not ready, until all of them are."""
    began = time.monotonic()
    while seen.unready.keys() < set(roles) and time.monotonic() - began < seconds:
        for role in set(roles) - seen.unready.keys():
            status, body = system.ask(role, "/readyz")
            if status != 200:
                seen.unready[role], seen.after[role] = json.loads(body)["checks"], time.monotonic() - began
        time.sleep(0.2)
    if "ingress" not in roles:
        wait_for(lambda: "notes" in system.ask("ingress", "/readyz")[1], 60)
    seen.alive = {role: system.ask(role, "/livez")[0] for role in ROLES}
    seen.ready_body = system.ask("ingress", "/readyz")[1]


def back(system: System) -> float:
    began = time.monotonic()
    wait_for(system.all_ready, 90)
    return time.monotonic() - began


def whole_status(system: System, seen: Freeze) -> tuple[int, str]:
    began = time.monotonic()
    with Cli(system.database, system.amqp_url).process("status") as command:
        out, err = command.communicate(timeout=60)
    seen.status_seconds = time.monotonic() - began
    return command.returncode, out + err


@pytest.fixture(scope="module")
def without_postgres(servers: PrivateServers, system: System) -> Freeze:
    """The observations while Postgres is frozen, with statements running and messages arriving."""
    seen = Freeze()
    engine = make_engine(system.database.url, pool_size=3, statement_timeout=600.0)
    under_way = threading.Barrier(3)

    def asked() -> None:
        with transaction(engine) as conn:
            conn.execute(text("SELECT 1"))
            under_way.wait(60)
            conn.execute(text("SELECT pg_sleep(300)"))

    def copied() -> None:
        with transaction(engine) as conn:
            conn.execute(text("CREATE TEMPORARY TABLE copied (n int)"))
            under_way.wait(60)
            copy_rows(conn, "COPY copied FROM STDIN (FORMAT binary)", iter(lambda: [bytes(4)], None))

    with traffic(system.amqp_url), ThreadPoolExecutor(6) as pool, lateness_measured() as lateness:
        time.sleep(0.5)
        work = {"statement": begin(pool, asked), "copy": begin(pool, copied)}
        under_way.wait(60)
        time.sleep(0.3)
        with frozen(servers.postgres_pid):
            work["login"] = begin(pool, lambda: make_engine(system.database.url).connect())
            status = pool.submit(whole_status, system, seen)
            watch(system, tuple(role for role in ROLES if role != "ingress"), seen, 60)
            seen.posted = [system.post(f"frozen-{number}") for number in range(5)]
            seen.ended = {name: each.result(90) for name, each in work.items()}
            seen.status = status.result(90)
        seen.back, seen.late = back(system), lateness()
    engine.dispose()
    return seen


@pytest.fixture(scope="module")
def without_rabbitmq(servers: PrivateServers, system: System, without_postgres: Freeze) -> Freeze:
    """The observations while RabbitMQ is frozen, with messages arriving and a long statement in Postgres."""
    seen = Freeze()
    engine = make_engine(system.database.url, pool_size=1, statement_timeout=600.0)

    def slept() -> None:
        with transaction(engine) as conn:
            conn.execute(text("SELECT pg_sleep(6.5)"))

    with traffic(system.amqp_url) as confirmed, ThreadPoolExecutor(2) as pool, lateness_measured() as lateness:
        wait_for(lambda: len(confirmed) > 5)
        long = begin(pool, slept)
        with frozen(servers.rabbitmq_pid):
            status = pool.submit(whole_status, system, seen)
            watch(system, tuple(role for role in ROLES if role not in WITHOUT_BROKER), seen, 60)
            seen.posted = [system.post("refused")]
            seen.status = status.result(90)
            seen.ended = {"long": long.result(90)}
        seen.back, seen.late = back(system), lateness()
    engine.dispose()
    return seen


def test_every_process_that_works_with_postgres_says_that_it_stands_still(without_postgres: Freeze) -> None:
    assert {*ROLES} - {"ingress"} == without_postgres.unready.keys()
    assert {"ok"} != {checks["database"] for checks in without_postgres.unready.values()}
    assert all(
        "Postgres" in checks["database"] or "batch" in checks["database"] for checks in without_postgres.unready.values()
    )
    assert max(without_postgres.after.values()) < LIMIT + 6 + without_postgres.late


def test_the_ingress_takes_messages_meanwhile_and_says_that_its_configuration_may_be_old(without_postgres: Freeze) -> None:
    body = json.loads(without_postgres.ready_body)

    assert [202] * 5 == without_postgres.posted
    assert (True, "ok") == (body["ready"], body["checks"]["broker"])
    assert "the configuration read last is in use" in body["notes"]["database"]


@pytest.mark.parametrize("work", ["statement", "copy", "login"])
def test_what_waits_for_postgres_is_given_up_in_time(without_postgres: Freeze, work: str) -> None:
    error, seconds = without_postgres.ended[work]

    assert error is not None
    assert passes(error), repr(error)
    assert seconds < DEADLINE + without_postgres.late


def test_every_process_that_works_with_rabbitmq_says_that_it_stands_still(without_rabbitmq: Freeze) -> None:
    assert {*ROLES} - WITHOUT_BROKER == without_rabbitmq.unready.keys()
    assert "ok" not in {checks["broker"] for checks in without_rabbitmq.unready.values()}
    assert max(without_rabbitmq.after.values()) < LIMIT + 6 + without_rabbitmq.late
    assert [503] == without_rabbitmq.posted


@pytest.mark.parametrize("server", ["without_postgres", "without_rabbitmq"])
def test_no_process_is_held_to_be_dead_and_all_recover_by_themselves(request: pytest.FixtureRequest, server: str) -> None:
    seen: Freeze = request.getfixturevalue(server)

    assert dict.fromkeys(ROLES, 200) == seen.alive
    assert seen.back < 20 + seen.late


def test_status_ends_during_the_freeze_and_names_the_silent_server(without_postgres: Freeze, without_rabbitmq: Freeze) -> None:
    code, said = without_postgres.status
    assert (2, True) == (code, "the database does not answer" in said), said
    assert "waxseal.ingest: " in said
    code, said = without_rabbitmq.status
    assert (0, True) == (code, "the broker does not answer" in said), said
    assert "ledger  " in said
    assert (
        max(without_postgres.status_seconds, without_rabbitmq.status_seconds)
        < DEADLINE + without_postgres.late + without_rabbitmq.late
    )


def test_nothing_is_lost_or_doubled(without_postgres: Freeze, without_rabbitmq: Freeze, system: System) -> None:
    with traffic(system.amqp_url) as confirmed:
        wait_for(lambda: len(confirmed) > 5)
    wait_for(lambda: set(confirmed) <= set(system.recorded()))
    recorded = Counter(system.recorded())
    wait_for(lambda: system.sink.ids().keys() >= recorded.keys(), 60)

    assert {1} == set(recorded.values())
    assert {f"frozen-{number}" for number in range(5)} <= recorded.keys()
    assert recorded.keys() == system.sink.ids().keys()
    assert [] == system.database.rows("SELECT id FROM dead_letter")


def test_a_statement_may_take_its_time_while_the_server_works(without_rabbitmq: Freeze) -> None:
    error, seconds = without_rabbitmq.ended["long"]

    assert error is None
    assert seconds > 6.5


def test_a_broker_that_does_not_greet_is_asked_again(silent: Silent, without_rabbitmq: Freeze) -> None:
    wait_for(lambda: len(silent.connections) > 6)  # two of the consumer, the others of the process' queries

    assert silent.process.poll() is None
    assert 200 == ask(silent.process_port, "/livez")[0]  # after more than 30 s without a connection


def test_every_process_that_is_told_to_stop_while_it_is_frozen_stops_when_it_goes_on(system: System) -> None:
    """The last test: any thread takes the signal then, and only the main one runs its handler."""
    with ExitStack() as stopped:
        for process in system.processes.values():
            stopped.enter_context(frozen(process.pid))
        for process in system.processes.values():
            process.terminate()

    assert dict.fromkeys(ROLES, 0) == {role: process.wait(30) for role, process in system.processes.items()}
