"""The sessions of a test's database: they wait for locks, are ended, cannot begin, or log in quickly."""

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from ops.servers.private import PrivateServers


def waits_for_lock(database: Any) -> bool:
    """Whether a session waits for a lock that another one holds."""
    waits = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(database.rows(waits))


def end_connections(database: Any) -> None:
    """Ends every other connection to the database; returns when none is left."""
    database.run(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


@contextmanager
def away(servers: PrivateServers, database: Any) -> Iterator[None]:
    """Nobody can connect to the database while the block runs, and nobody is connected when it begins."""
    name = psycopg.conninfo.conninfo_to_dict(database.url)["dbname"]
    with psycopg.connect(servers.database_url, autocommit=True) as conn:
        conn.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        try:
            conn.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", [name])
            yield
        finally:
            conn.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def quick_password(password: str) -> str:
    """The password as Postgres stores it: clients hash it once, and not 4,096 times, which takes them 3 ms of CPU."""
    salt = b"salt"
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 1)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    shown = [b64encode(each).decode() for each in (salt, stored, hmac.digest(salted, b"Server Key", "sha256"))]
    return f"SCRAM-SHA-256$1:{shown[0]}${shown[1]}:{shown[2]}"
