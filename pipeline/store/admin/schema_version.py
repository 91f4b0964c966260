"""Statements about the schema itself: its version, and the sessions that block a change to it."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

PRESENT = text("""
    SELECT to_regclass('alembic_version') IS NOT NULL AS versioned, to_regclass('entry') IS NOT NULL AS filled,
           to_regclass('entry_v1') IS NOT NULL AS copying""")
VERSIONS = text("SELECT version_num FROM alembic_version ORDER BY 1")

# A statement that waits for a table's lock blocks all later ones, readers too, so it gives up and the caller tries again.
IMPATIENT = text("SET LOCAL lock_timeout = '3s'")

# An arbitrary number that nothing else in the database locks: two concurrent migrations wait for each other.
ALONE = text("SELECT pg_advisory_xact_lock(24595492933820780)")

# A prepared transaction has no session: its pid is 0. Without superuser rights, statements of other users are hidden.
BLOCKERS = text("""
    SELECT blocker AS pid, usename AS login, application_name AS application, state,
           CAST(extract(epoch FROM clock_timestamp() - xact_start) AS int) AS open_for, left(query, 80) AS statement
    FROM unnest(pg_blocking_pids(:pid)) AS blocker LEFT JOIN pg_stat_activity ON pid = blocker
    ORDER BY 1""")


# Processes, by the name that their connections give; not the owner's commands, of which this is one.
WRITERS = text("""
    SELECT pid, usename AS login FROM pg_stat_activity JOIN pg_class ON pg_class.oid = to_regclass('entry')
    WHERE datname = current_database() AND application_name LIKE 'waxseal%' AND usesysid IS NOT NULL
      AND EXISTS (SELECT FROM pg_roles WHERE rolname = 'waxseal_writer')
      AND pg_has_role(usesysid, 'waxseal_writer', 'MEMBER') AND NOT pg_has_role(usesysid, relowner, 'MEMBER')
    ORDER BY 1""")


@dataclass(frozen=True, slots=True)
class Found:
    """The state of a database's schema: the rows of its version table, None without one; and whether it has our tables.

    While `copying`, only a part of the entries is in the table where they belong.
    """

    versions: Sequence[str] | None
    filled: bool
    copying: bool = False


@dataclass(frozen=True, slots=True)
class Blocker:
    """A session that blocks another one."""

    pid: int
    login: str | None
    application: str | None
    state: str | None
    open_for: int | None  # seconds since its transaction began
    statement: str | None


def found(conn: Connection) -> Found:
    """The schema's state, even if it is inconsistent."""
    present = conn.execute(PRESENT).one()
    return Found(conn.execute(VERSIONS).scalars().all() if present.versioned else None, present.filled, present.copying)


def begin_change(conn: Connection) -> None:
    """Prevents other schema changes until this transaction ends. The transaction waits for no lock longer than 3 seconds."""
    conn.execute(IMPATIENT)
    conn.execute(ALONE)


def writers(conn: Connection) -> list[str]:
    """The connections of processes, each as its pid and login."""
    return [f"pid {row.pid} ({row.login})" for row in conn.execute(WRITERS)]


def blockers(conn: Connection, pid: int) -> list[Blocker]:
    """The sessions that block the session `pid` now."""
    return [Blocker(*row) for row in conn.execute(BLOCKERS, {"pid": pid})]
