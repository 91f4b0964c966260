"""Statements on those folders of a mailbox that cannot be read, while its others can."""

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import Connection, text

from pipeline.store.storable_text import storable

ERRORS = text("SELECT folder, error, since FROM mailbox_folder_error WHERE mailbox_id = :id ORDER BY folder")

# `since` keeps its value, and an unchanged reason is not written again.
PUT = text("""
    INSERT INTO mailbox_folder_error AS held (mailbox_id, folder, error, since) VALUES (:id, :folder, :error, :now)
    ON CONFLICT (mailbox_id, folder) DO UPDATE SET error = excluded.error WHERE held.error <> excluded.error""")

DROP = text("DELETE FROM mailbox_folder_error WHERE mailbox_id = :id AND folder = ANY(CAST(:folders AS text[]))")


def errors(conn: Connection, mailbox_id: int) -> dict[str, tuple[str, datetime]]:
    """The folders that cannot be read, with the error and since when."""
    return {row.folder: (row.error, row.since) for row in conn.execute(ERRORS, {"id": mailbox_id})}


def put(conn: Connection, mailbox_id: int, failed: Mapping[str, str], now: datetime) -> None:
    """Records why folders cannot be read. The caller must have checked that it still holds the mailbox's lease."""
    for folder, error in failed.items():
        conn.execute(PUT, {"id": mailbox_id, "folder": folder, "error": storable(error), "now": now})


def drop(conn: Connection, mailbox_id: int, folders: Collection[str]) -> None:
    """Deletes the records of these folders."""
    conn.execute(DROP, {"id": mailbox_id, "folders": list(folders)})
