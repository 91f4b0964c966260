"""Statements about the schema itself: which version it has, and who keeps it from being changed."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

PRESENT = text("SELECT to_regclass('alembic_version') IS NOT NULL AS versioned, to_regclass('entry') IS NOT NULL AS filled")
VERSIONS = text("SELECT version_num FROM alembic_version ORDER BY 1")

# What waits for a lock makes everybody wait who comes after it, readers too: so it gives up, and comes again.
IMPATIENT = text("SET LOCAL lock_timeout = '3s'")

# Any number that nothing else on the database locks: two migrations at once wait for each other.
ALONE = text("SELECT pg_advisory_xact_lock(24595492933820780)")

# Whom a session waits for. A prepared transaction has no session: its pid is 0. Who is no superuser sees no strange statements.
BLOCKERS = text("""
    SELECT blocker AS pid, usename AS login, application_name AS application, state,
           CAST(extract(epoch FROM clock_timestamp() - xact_start) AS int) AS open_for, left(query, 80) AS statement
    FROM unnest(pg_blocking_pids(:pid)) AS blocker LEFT JOIN pg_stat_activity ON pid = blocker
    ORDER BY 1""")


@dataclass(frozen=True, slots=True)
class Found:
    """What a database says of its schema: the rows of its version table, None without one, and if it has our tables."""

    versions: Sequence[str] | None
    filled: bool


@dataclass(frozen=True, slots=True)
class Blocker:
    """A session that somebody waits for."""

    pid: int
    login: str | None
    application: str | None
    state: str | None
    open_for: int | None  # seconds since its transaction began
    statement: str | None


def found(conn: Connection) -> Found:
    """What there is, however broken."""
    present = conn.execute(PRESENT).one()
    return Found(conn.execute(VERSIONS).scalars().all() if present.versioned else None, present.filled)


def begin_change(conn: Connection) -> None:
    """Keeps others from changing the schema until this transaction ends. No lock is waited for longer than three seconds."""
    conn.execute(IMPATIENT)
    conn.execute(ALONE)


def blockers(conn: Connection, pid: int) -> list[Blocker]:
    """Whom the session `pid` waits for just now."""
    return [Blocker(*row) for row in conn.execute(BLOCKERS, {"pid": pid})]
