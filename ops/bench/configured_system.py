"""A configured system on private servers, for a benchmark to put under load."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from cryptography.fernet import Fernet
from psycopg import sql
from sqlalchemy import Engine, create_engine, make_url

from ops.config.apply import apply_file
from ops.migrate import migrate
from ops.servers.accounts import own_file
from ops.servers.private import PrivateServers, private_servers
from ops.settings import Settings, environment
from pipeline.delivery.addresses import LOOPBACK


@contextmanager
def fresh_servers() -> Iterator[tuple[PrivateServers, Path]]:
    """Servers that only this benchmark uses, and the folder of their data, which is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="waxseal-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with private_servers(folder) as servers:
            yield servers, folder


@contextmanager
def kept_servers(folder: Path) -> Iterator[tuple[PrivateServers, Path]]:
    """Servers on a folder that stays, for the next run of the same benchmark."""
    with private_servers(folder) as servers:
        yield servers, folder.absolute()


def configure(servers: PrivateServers, folder: Path, config: str) -> dict[str, str]:
    """Migrate, apply `config` and give the environment of a process that works there. A folder that is kept keeps its key."""
    migrate(servers.database_url)
    kept = folder / "bench.key"
    if not kept.exists():
        own_file(kept, Fernet.generate_key().decode(), None)
    key = kept.read_text(encoding="ascii")
    path = folder / "bench.yaml"
    path.write_text(config, encoding="utf-8")
    apply_file(path, Settings(database_url=servers.database_url, keys=key))
    return environment() | {
        "WAXSEAL_DATABASE_URL": servers.database_url,
        "WAXSEAL_AMQP_URL": servers.amqp_url,
        "WAXSEAL_KEYS": key,
        "WAXSEAL_LOG_LEVEL": "warning",
        "WAXSEAL_ALLOW_NETWORKS": LOOPBACK,
    }


def fresh_database(database_url: str) -> str:
    """Copy a database, to which there must be no connection, and give the copy's URL: no contestant has used its tables."""
    name = f"bench_{os.urandom(4).hex()}"
    url = make_url(database_url)
    copy = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(url.database or ""))
    admin = url.set(database="postgres").render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True, connect_timeout=10) as conn:
        conn.execute(copy)
    return url.set(database=name).render_as_string(hide_password=False)


def drop_database(database_url: str) -> None:
    """Drop a copy, ending the connections to it; Postgres does a checkpoint."""
    url = make_url(database_url)
    admin = url.set(database="postgres").render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True, connect_timeout=10) as conn:
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(url.database or "")))


def plain_engine(database_url: str, pool_size: int) -> Engine:
    """The pool that a peer would make: SQLAlchemy's defaults, without the liveness checks and custom plans of ours."""
    url = make_url(database_url).set(drivername="postgresql+psycopg")
    return create_engine(url, pool_size=pool_size, connect_args={"connect_timeout": 5})
