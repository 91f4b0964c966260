"""Statements on the folders of a mailbox that cannot be read, while others of it can."""

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import Connection, text

from pipeline.store.storable_text import storable

ERRORS = text("SELECT folder, error, since FROM mailbox_folder_error WHERE mailbox_id = :id ORDER BY folder")

# Since when stays as it was, and a reason that has not changed is not written again.
PUT = text("""
    INSERT INTO mailbox_folder_error AS held (mailbox_id, folder, error, since) VALUES (:id, :folder, :error, :now)
    ON CONFLICT (mailbox_id, folder) DO UPDATE SET error = excluded.error WHERE held.error <> excluded.error""")

DROP = text("DELETE FROM mailbox_folder_error WHERE mailbox_id = :id AND folder = ANY(CAST(:folders AS text[]))")


def errors(conn: Connection, mailbox_id: int) -> dict[str, tuple[str, datetime]]:
    """Why, and since when, folders cannot be read."""
    return {row.folder: (row.error, row.since) for row in conn.execute(ERRORS, {"id": mailbox_id})}


def put(conn: Connection, mailbox_id: int, failed: Mapping[str, str], now: datetime) -> None:
    """Remembers why folders cannot be read. The caller has made sure that it still holds the mailbox's lease."""
    for folder, error in failed.items():
        conn.execute(PUT, {"id": mailbox_id, "folder": folder, "error": storable(error), "now": now})


def drop(conn: Connection, mailbox_id: int, folders: Collection[str]) -> None:
    """Forgets that folders could not be read."""
    conn.execute(DROP, {"id": mailbox_id, "folders": list(folders)})
