"""Makes what the workers need before they start: the schema, their logins, a key for secrets, and their settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
import structlog
from cryptography.fernet import Fernet
from psycopg import sql

from ops.migrate import migrate
from ops.process_roles import LOGIN_OF, LOGINS, Login
from ops.runtime.durable_files import make_folders
from ops.servers.accounts import own_file
from ops.servers.private import PrivateServers
from ops.settings import Settings
from pipeline.delivery.addresses import LOOPBACK

ORIGIN: Final = "waxseal.local"  # of the tenants' logs, until somebody names it

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the workers are told: settings, of which the database's URL depends on the process's role."""

    told: Mapping[str, str]
    database_urls: Mapping[Login, str]

    def told_to(self, role: str) -> Mapping[str, str]:
        """The settings of a process of this role."""
        return {**self.told, "database_url": self.database_urls[LOGIN_OF[role]]}


def prepare(servers: PrivateServers, settings: Settings) -> Prepared:
    """Bring the database up to date and make what is missing; returns the workers' settings.

    Running it again changes nothing.
    """
    migrate(servers.database_url, lambda line: _log.warning("migration_waits", what=line))
    passwords = {login: servers.memory.passwords[login.key] for login in LOGINS}
    _make_logins(servers.database_url, passwords)
    told = {
        "amqp_url": servers.amqp_url,
        "blobs": _made(blob_place(servers.data, settings)),
        "allow_networks": allowed(settings),
        "log_files": published_place(servers.data, settings),
        "log_origin": settings.log_origin or ORIGIN,
    }
    if not settings.keys:
        told["keys_file"] = str(settings.keys_file or make_keys(servers.data))
    return Prepared(told, {login: servers.url_for(login.name, password) for login, password in passwords.items()})


def make_keys(data: Path) -> Path:
    """Make a key for secrets at rest unless the folder has one. Without a copy of it elsewhere, secrets are lost with it."""
    keys = data / "keys"
    if not keys.exists():
        own_file(keys, Fernet.generate_key().decode() + "\n", None)
    return keys


def allowed(settings: Settings) -> str:
    """The networks that may be delivered to; by default loopback, as a trial has its endpoints on this machine."""
    return settings.allow_networks if "allow_networks" in settings.model_fields_set else LOOPBACK


def blob_place(data: Path, settings: Settings) -> str:
    """The blob store, independent of the working directory: by default in the data folder."""
    place = settings.blobs if "blobs" in settings.model_fields_set else str(data / "blobs")
    return place if place.startswith("s3://") else str(Path(place).absolute())


def _made(place: str) -> str:
    """The blob store; a folder is made, so that a missing one is a fault later."""
    if not place.startswith("s3://"):
        make_folders(Path(place), 0o700)
    return place


def published_place(data: Path, settings: Settings) -> str:
    """Where the tenants' logs are published, independent of the working directory."""
    place = settings.log_files or str(data / "published")
    return place if place.startswith("s3://") else str(Path(place).absolute())


def _make_logins(database_url: str, passwords: Mapping[Login, str]) -> None:
    with psycopg.connect(database_url, autocommit=True, connect_timeout=10) as conn:
        for login, password in passwords.items():
            _make_login(conn, login, password)


def _make_login(conn: psycopg.Connection, login: Login, password: str) -> None:
    names = {"login": sql.Identifier(login.name), "role": sql.Identifier(login.member_of)}
    # Hashed by us, because the server logs a statement that fails, with its password.
    secret = conn.pgconn.encrypt_password(password.encode(), login.name.encode(), b"scram-sha-256").decode()
    if not conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [login.name]).fetchone():
        conn.execute(sql.SQL("CREATE ROLE {login}").format(**names))
    conn.execute(sql.SQL("ALTER ROLE {login} LOGIN PASSWORD {secret}").format(**names, secret=sql.Literal(secret)))
    conn.execute(sql.SQL("GRANT {role} TO {login}").format(**names))
