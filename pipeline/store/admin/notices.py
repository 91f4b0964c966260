"""Statements on operator events: those of ingest one an hour for each source or chain, over all processes.

Of chains that cannot be read, one an hour for each tenant: their ids are not known.
"""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.store.storable_text import storable

INTERVAL: Final = timedelta(hours=1)

# A statement of its own: after the wait, the next statement's snapshot has what the previous holder wrote.
LOCK = text("SELECT pg_advisory_xact_lock(24852988478448747)")

NOTE_CONFLICT = text("""
    INSERT INTO operator_event (at, kind, tenant, source_id, detail)
    SELECT :now, 'duplicate_differs', tenant.name, source.id, :detail FROM source JOIN tenant ON tenant.id = tenant_id
    WHERE tenant.name = :tenant AND source.name = :source AND NOT EXISTS (
      SELECT FROM operator_event WHERE kind = 'duplicate_differs' AND source_id = source.id AND at > :since)""")

NOTE_BROKEN = text("""
    INSERT INTO operator_event (at, kind, tenant, chain_id, detail)
    SELECT :now, 'chain_broken', :tenant, :chain_id, :detail WHERE NOT EXISTS (
      SELECT FROM operator_event WHERE kind = 'chain_broken' AND chain_id = :chain_id AND at > :since)""")

NOTE_UNREADABLE = text("""
    INSERT INTO operator_event (at, kind, tenant, detail)
    SELECT :now, 'chain_broken', :tenant, :detail WHERE NOT EXISTS (
      SELECT FROM operator_event WHERE kind = 'chain_broken' AND chain_id IS NULL AND tenant = :tenant AND at > :since)""")

NOTE_CRASH_LOOP = text("INSERT INTO operator_event (at, kind, detail) VALUES (:now, 'crash_loop', :detail)")

CRASH_LOOPS = text("SELECT detail FROM operator_event WHERE kind = 'crash_loop' AND at > :since ORDER BY id DESC LIMIT 20")


def note_conflict(conn: Connection, tenant: str, source: str, detail: str, now: datetime) -> None:
    """Adds an event that a duplicate had other content, unless the source had one within the hour.

    Use a transaction that holds no other locks, because this waits for concurrent notices.
    """
    conn.execute(LOCK)
    asked = {"tenant": tenant, "source": source, "detail": storable(detail), "now": now, "since": now - INTERVAL}
    conn.execute(NOTE_CONFLICT, asked)


def note_broken(conn: Connection, tenant: str, chain_id: UUID, detail: str, now: datetime) -> None:
    """Adds an event that a chain is set aside, unless the chain had one within the hour.

    Use a transaction that holds no other locks, as for `note_conflict`.
    """
    conn.execute(LOCK)
    asked = {"tenant": tenant, "chain_id": chain_id, "detail": storable(detail), "now": now, "since": now - INTERVAL}
    conn.execute(NOTE_BROKEN, asked)


def note_unreadable(conn: Connection, tenant: str, detail: str, now: datetime) -> None:
    """Adds an event that chains of the tenant cannot be read, unless the tenant had one within the hour.

    Use a transaction that holds no other locks, as for `note_conflict`.
    """
    conn.execute(LOCK)
    conn.execute(NOTE_UNREADABLE, {"tenant": tenant, "detail": storable(detail), "now": now, "since": now - INTERVAL})


def note_crash_loop(conn: Connection, detail: str, now: datetime) -> None:
    """Adds an event that a process ends again and again."""
    conn.execute(NOTE_CRASH_LOOP, {"detail": storable(detail), "now": now})


def crash_loops(conn: Connection, since: datetime) -> list[str]:
    """The details of crash loops since then, newest first, twenty at most."""
    return list(conn.execute(CRASH_LOOPS, {"since": since}).scalars())
