"""A migrated database for each test, ways to put a catalog into it, and the fixtures that integration tests share."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pika
import psycopg
import pytest
from cryptography.fernet import Fernet
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError
from psycopg.types.json import Jsonb
from sqlalchemy import Engine, make_url

from ops.migrate import migrate
from ops.runtime.db import make_engine
from ops.runtime.vault import Vault
from ops.servers.private import PrivateServers
from ops.settings import environment
from support.cli import Cli, variables
from support.forked import Forked
from support.net.s3 import s3_server
from support.net.sink import Sink
from support.sessions import quick_password
from workers.amqp.dramatiq_broker import DELIVER_TOPOLOGY, QUEUE

TEMPLATE = "template_waxseal"
LOGINS = {"worker": "writer"} | {name: name for name in ("reader", "verifier", "sealer", "console", "eraser")}

Start = Callable[..., Forked]  # starts a waxseal command with settings by name
_numbers = itertools.count()


@dataclass
class Database:
    """A database that only this test uses. `url` logs in as its owner, `worker_url` as a member of waxseal_writer."""

    url: str
    worker_url: str
    key: str  # that encrypts its secrets
    _kept: psycopg.Connection | None = field(default=None, init=False, repr=False)

    @property
    def sealer_url(self) -> str:
        """Logs in as a member of waxseal_sealer."""
        return make_url(self.url).set(username="test_sealer", password="sealer").render_as_string(hide_password=False)

    @property
    def reader_url(self) -> str:
        """Logs in as a member of waxseal_reader."""
        return make_url(self.url).set(username="test_reader", password="reader").render_as_string(hide_password=False)

    @property
    def console_url(self) -> str:
        """Logs in as a member of waxseal_console."""
        return make_url(self.url).set(username="test_console", password="console").render_as_string(hide_password=False)

    @property
    def vault(self) -> Vault:
        return Vault([self.key])

    @property
    def eraser_url(self) -> str:
        """Logs in as a member of waxseal_eraser."""
        return make_url(self.url).set(username="test_eraser", password="eraser").render_as_string(hide_password=False)

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.url, autocommit=True)

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()

    def run(self, query: str, *parameters: object) -> psycopg.Cursor:
        """Runs the statement by itself, on a connection that is kept: to connect takes 10 ms of CPU."""
        if self._kept is not None:
            try:
                return self._kept.execute(query, parameters)
            except psycopg.OperationalError:
                if not self._kept.closed:  # else a test has ended it, or the server
                    raise
        self._kept = psycopg.connect(self.url, autocommit=True, prepare_threshold=None)
        return self._kept.execute(query, parameters)

    def rows(self, query: str, *parameters: object) -> list[tuple]:
        return self.run(query, *parameters).fetchall()

    def add_tenant(self, name: str = "acme") -> None:
        key = self.vault.encrypt(b"k" * 32)
        self.run("INSERT INTO tenant (name, fingerprint_key) VALUES (%s, %s)", name, key)

    def add_source(self, name: str, kind: str, *secrets: str, tenant: str = "acme", **settings: object) -> None:
        encrypted = [self.vault.encrypt(secret.encode()) for secret in secrets]
        self.run(
            "INSERT INTO source (tenant_id, name, kind, secrets, settings)"
            " SELECT id, %s, %s, %s, %s FROM tenant WHERE name = %s",
            *(name, kind, encrypted, Jsonb(settings), tenant),
        )

    def add_endpoint(
        self, name: str, url: str, *secrets: str, tenant: str = "acme", filter: dict | None = None, **settings: object
    ) -> int:
        encrypted = [self.vault.encrypt(secret.encode()) for secret in secrets]
        ((id,),) = self.rows(
            "WITH added AS (INSERT INTO endpoint (tenant_id, name, url, secrets, settings)"
            " SELECT id, %s, %s, %s, %s FROM tenant WHERE name = %s RETURNING id)"
            " INSERT INTO subscription SELECT id, %s FROM added RETURNING endpoint_id",
            *(name, url, encrypted, Jsonb(settings), tenant, Jsonb(filter) if filter else None),
        )
        return int(id)


@pytest.fixture(scope="session")
def template(servers: PrivateServers) -> str:
    """The name of a migrated, empty database that tests copy."""
    with psycopg.connect(servers.database_url, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {TEMPLATE}")
    migrate(_on(servers.database_url, TEMPLATE))
    with psycopg.connect(servers.database_url, autocommit=True) as conn:
        for login, role in LOGINS.items():
            password = quick_password(login)
            conn.execute(f"CREATE ROLE test_{login} LOGIN PASSWORD '{password}' IN ROLE waxseal_{role}")
    with psycopg.connect(_on(servers.database_url, TEMPLATE)) as conn:
        conn.execute("SELECT make_attempt_partitions('2025-12-31', 7)")  # the days of the tests' fixed clocks
    return TEMPLATE


@contextmanager
def fresh_database(servers: PrivateServers, template: str) -> Iterator[Database]:
    name = f"test_{next(_numbers)}"
    with psycopg.connect(servers.database_url, autocommit=True) as conn:
        # Copied as files: the default, by way of the write-ahead log, takes three times the CPU when fsync is off.
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    url = _on(servers.database_url, name)
    worker = make_url(url).set(username="test_worker", password="worker").render_as_string(hide_password=False)
    database = Database(url, worker, Fernet.generate_key().decode())
    yield database
    database.close()
    with psycopg.connect(servers.database_url, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(servers: PrivateServers, template: str) -> Iterator[Database]:
    """A fresh migrated database, dropped afterwards."""
    with fresh_database(servers, template) as fresh:
        yield fresh


@pytest.fixture
def another_database(servers: PrivateServers, template: str) -> Iterator[Database]:
    """A second one, of another cell."""
    with fresh_database(servers, template) as fresh:
        yield fresh


@pytest.fixture(scope="module")
def shared_database(servers: PrivateServers, template: str) -> Iterator[Database]:
    """A migrated database that the tests of one module share."""
    with fresh_database(servers, template) as fresh:
        yield fresh


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of a private S3 server."""
    with s3_server() as address:
        yield address


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A subscriber over HTTP, while the test runs."""
    sink = Sink()
    sink.start()
    yield sink
    sink.stop()


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets this process call servers on this machine, as those that `start` starts may."""
    monkeypatch.setenv("WAXSEAL_ALLOW_NETWORKS", "127.0.0.0/8")


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    """A pool on the test's database with the rights of a worker."""
    engine = make_engine(database.worker_url, pool_size=10)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def shared_engine(shared_database: Database) -> Iterator[Engine]:
    """A pool on the module's database with the rights of a worker."""
    engine = make_engine(shared_database.worker_url, pool_size=10)
    yield engine
    engine.dispose()


@pytest.fixture
def channel(servers) -> Iterator[BlockingChannel]:
    """A channel to the broker, with the topology that the relay declares and an empty queue."""
    connection = pika.BlockingConnection(pika.URLParameters(servers.amqp_url))
    channel = connection.channel()
    for method, arguments in DELIVER_TOPOLOGY:
        getattr(channel, method)(**arguments)
    channel.queue_purge(QUEUE)
    yield channel
    with suppress(AMQPError):  # a test may have killed the broker
        connection.close()


@pytest.fixture
def start(servers, database, channel, tmp_path) -> Iterator[Start]:
    with starting(servers, database, tmp_path / "blobs") as start:
        yield start


@pytest.fixture(scope="module")
def shared_start(servers, shared_database, tmp_path_factory) -> Iterator[Start]:
    """Starts commands on the module's database that run until its last test."""
    with starting(servers, shared_database, tmp_path_factory.mktemp("shared") / "blobs") as start:
        yield start


@contextmanager
def starting(servers: PrivateServers, database: Database, blobs: Path) -> Iterator[Start]:
    """Yields a function that starts a waxseal command; ends what it started."""
    processes: list[Forked] = []

    def start(command: str, *, before: Callable[[], None] | None = None, **settings: object) -> Forked:
        ours = {
            "database_url": database.worker_url,
            "amqp_url": servers.amqp_url,
            "keys": database.key,
            "allow_networks": "127.0.0.0/8",
            "blobs": blobs,
            "log_files": blobs.parent / "published",
            "log_origin": "ledger.example",
        }
        if command in ("sequencer", "sealer"):
            ours["database_url"] = database.sealer_url
        env = environment() | variables(ours | settings)
        processes.append(Forked(command, env=env, before=before))
        return processes[-1]

    try:
        yield start
    finally:
        for process in processes:
            process.terminate()
        try:
            for process in processes:
                process.wait(30)
        finally:
            for process in processes:
                process.kill()


@pytest.fixture
def cli(servers: PrivateServers, database: Database, tmp_path: Path) -> Cli:
    """Commands beside the processes of `start`: on the same database, broker and blobs, and looking up no name."""
    return Cli(database, servers.amqp_url, blobs=tmp_path / "blobs", mail_dns=False)


def _on(url: str, database: str) -> str:
    return make_url(url).set(database=database).render_as_string(hide_password=False)
