"""Statements on how far mailboxes are read, and on the mails held, which are those already recorded as durable."""

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, text

from pipeline.store.storable_text import storable
from schemas.mailbox import Cursor, Lane, MailItem, Print

#: Flag of a mail with the Message-ID of another mail in the mailbox, but other bytes: both are kept, and the flag is shown.
CONFLICT: Final = "message_id_conflict"

CURSORS = text("""
    SELECT folder, lane, cursor, done, total, finished_at, again, CASE WHEN listing_moved = moved_at THEN listing_from END
    FROM mailbox_cursor WHERE mailbox_id = :id ORDER BY folder, lane""")

PUT_CURSOR = text("""
    INSERT INTO mailbox_cursor (mailbox_id, folder, lane, cursor, done, total, again, begun_at, moved_at, finished_at,
      listing_from, listing_moved, compared_from)
    VALUES (:id, :folder, :lane, CAST(:cursor AS jsonb), :done, :total, :again, :now, :now, CASE WHEN :finished THEN :now END,
      :listing_from, :now, CASE WHEN :finished THEN CAST(:listing_from AS timestamptz) END)
    ON CONFLICT (mailbox_id, folder, lane) DO UPDATE
    SET cursor = excluded.cursor, done = excluded.done, total = excluded.total, again = excluded.again,
        moved_at = excluded.moved_at, finished_at = excluded.finished_at, listing_from = excluded.listing_from,
        listing_moved = excluded.listing_moved,
        compared_from = coalesce(excluded.compared_from, mailbox_cursor.compared_from)""")

DROP_CURSORS = text("DELETE FROM mailbox_cursor WHERE mailbox_id = :id AND (CAST(:folder AS text) IS NULL OR folder = :folder)")

# One statement with arrays for a whole batch: row by row would cost more than all the rest of a pull.
ADD = text(f"""
    WITH fresh AS (
      SELECT *, min(event_id) OVER same <> max(event_id) OVER same AS conflicts
      FROM unnest(CAST(:keys AS text[]), CAST(:folders AS text[]), CAST(:ids AS text[]), CAST(:sizes AS bigint[]),
        CAST(:dates AS timestamptz[]), CAST(:events AS text[]), CAST(:flags AS text[]))
        AS item (source_key, folder, message_id, size, internal_date, event_id, flags)
      WINDOW same AS (PARTITION BY message_id)
    )
    INSERT INTO mail_item (mailbox_id, source_key, folder, message_id, size, internal_date, event_id, flags, seen_at)
    SELECT :id, source_key, folder, message_id, size, internal_date, event_id,
      string_to_array(nullif(fresh.flags, ''), ',') || CASE WHEN message_id IS NOT NULL AND (conflicts OR EXISTS (
        SELECT FROM mail_item AS held WHERE held.mailbox_id = :id AND held.message_id = fresh.message_id
          AND held.event_id <> fresh.event_id
      )) THEN '{{{CONFLICT}}}'::text[] ELSE '{{}}' END, :now
    FROM fresh
    ON CONFLICT (mailbox_id, source_key) DO NOTHING""")  # noqa: S608 - a name of ours

# A mail is stamped weekly, so that a daily comparison need not write every row; whoever has it locked is not waited for.
LISTED = text("""
    WITH stale AS (
      SELECT source_key FROM mail_item WHERE mailbox_id = :id AND source_key = ANY(CAST(:keys AS text[]))
        AND listed_at < now() - interval '7 days' ORDER BY source_key FOR UPDATE SKIP LOCKED
    ), stamped AS (
      UPDATE mail_item SET listed_at = now() FROM stale
      WHERE mail_item.mailbox_id = :id AND mail_item.source_key = stale.source_key
    )
    SELECT source_key FROM mail_item WHERE mailbox_id = :id AND source_key = ANY(CAST(:keys AS text[]))""")

KNOWN = text("SELECT source_key FROM mail_item WHERE mailbox_id = :id AND source_key = ANY(CAST(:keys AS text[]))")

# Each mail of an earlier generation of keys is matched once, however many are alike.
ALIKE = text("""
    WITH fresh AS (
      SELECT *, row_number() OVER (PARTITION BY message_id, size, internal_date ORDER BY source_key) AS n
      FROM unnest(CAST(:keys AS text[]), CAST(:ids AS text[]), CAST(:sizes AS bigint[]), CAST(:dates AS timestamptz[]))
        AS mail (source_key, message_id, size, internal_date)
    ), held AS (
      SELECT source_key, message_id, size, internal_date,
        row_number() OVER (PARTITION BY message_id, size, internal_date ORDER BY source_key) AS n
      FROM mail_item WHERE mailbox_id = :id AND folder = :folder AND message_id = ANY(CAST(:ids AS text[]))
        AND event_id IS NOT NULL AND NOT starts_with(source_key, :generation)
    )
    SELECT fresh.source_key AS new, held.source_key AS old FROM fresh JOIN held USING (message_id, size, internal_date, n)""")

OLDER = text("""
    SELECT EXISTS (SELECT FROM mail_item WHERE mailbox_id = :id AND folder = :folder
      AND NOT starts_with(source_key, :generation))""")

RENAME = text("""
    UPDATE mail_item SET source_key = new, listed_at = now()
    FROM unnest(CAST(:old AS text[]), CAST(:new AS text[])) AS key (old, new)
    WHERE mailbox_id = :id AND source_key = old""")

COUNT = text("""
    SELECT count(*) AS held, count(*) FILTER (WHERE event_id IS NULL AND NOT 'erased' = ANY(flags)) AS unfetched,
      count(*) FILTER (WHERE :conflict = ANY(flags)) AS conflicts
    FROM mail_item WHERE mailbox_id = :id""")


@dataclass(frozen=True, slots=True)
class Position:
    """How far one lane of a folder is read. `again`: the folder was read before, and reading has restarted.

    `listing_from`: when the comparison of all mails began that this lane is carrying out; None where some of it was not noted.
    """

    folder: str
    lane: Lane
    cursor: Cursor
    done: int = 0
    total: int | None = None
    finished_at: datetime | None = None
    again: bool = False
    listing_from: datetime | None = None


def positions(conn: Connection, mailbox_id: int) -> dict[tuple[str, Lane], Position]:
    """How far each lane of each folder is read."""
    found = [Position(*row) for row in conn.execute(CURSORS, {"id": mailbox_id})]
    return {(each.folder, each.lane): each for each in found}


def put_position(conn: Connection, mailbox_id: int, position: Position, now: datetime, *, finished: bool = False) -> None:
    """Writes how far a lane is read. The caller must have checked that it still holds the mailbox's lease."""
    row: dict[str, Any] = {"id": mailbox_id, "folder": position.folder, "lane": position.lane, "now": now}
    row |= {"cursor": json.dumps(position.cursor), "done": position.done, "total": position.total, "again": position.again}
    row |= {"finished": finished, "listing_from": position.listing_from}
    conn.execute(PUT_CURSOR, row)


def drop_positions(conn: Connection, mailbox_id: int, folder: str | None = None) -> int:
    """Deletes the positions of a folder or a whole mailbox, so that reading restarts; returns how many. Mails stay held."""
    return conn.execute(DROP_CURSORS, {"id": mailbox_id, "folder": folder}).rowcount


def add(conn: Connection, mailbox_id: int, items: Sequence[MailItem], now: datetime) -> None:
    """Records mails that are durable. An existing item stays unchanged; a new one with another's Message-ID is flagged."""
    if not items:
        return
    columns = {
        "keys": [item.source_key for item in items],
        "folders": [item.folder for item in items],
        "ids": [storable(item.message_id) for item in items],
        "sizes": [item.size for item in items],
        "dates": [item.internal_date for item in items],
        "events": [item.event_id for item in items],
        "flags": [",".join(item.flags) for item in items],
    }
    conn.execute(ADD, {"id": mailbox_id, "now": now, **columns})


def known(conn: Connection, mailbox_id: int, keys: Sequence[str]) -> Set[str]:
    """Those of `keys` that are held."""
    return set(conn.execute(KNOWN, {"id": mailbox_id, "keys": list(keys)}).scalars()) if keys else set()


def listed(conn: Connection, mailbox_id: int, keys: Sequence[str]) -> Set[str]:
    """Those of `keys`, which the mailbox lists just now, that are held; notes that they are still there."""
    return set(conn.execute(LISTED, {"id": mailbox_id, "keys": list(keys)}).scalars()) if keys else set()


def alike(conn: Connection, mailbox_id: int, folder: str, fresh: Mapping[str, Print]) -> dict[str, str]:
    """The new keys whose mail is held under a key of another generation: new key -> old key, each old one once.

    The new keys must be of one generation: they are equal up to the second slash.
    """
    if not fresh:
        return {}
    prints = list(fresh.values())
    asked = {
        "id": mailbox_id,
        "folder": folder,
        "generation": generation(next(iter(fresh))),
        "keys": list(fresh),
        "ids": [storable(each.message_id) for each in prints],
        "sizes": [each.size for each in prints],
        "dates": [each.internal_date for each in prints],
    }
    return {row.new: row.old for row in conn.execute(ALIKE, asked)}


def older(conn: Connection, mailbox_id: int, folder: str, source_key: str) -> bool:
    """Whether mails are held in `folder` under keys of another generation than that of `source_key`."""
    asked = {"id": mailbox_id, "folder": folder, "generation": generation(source_key)}
    return bool(conn.execute(OLDER, asked).scalar_one())


def generation(source_key: str) -> str:
    """The generation of a key: the part up to the second slash."""
    return "/".join(source_key.split("/", 2)[:2]) + "/"


def rename(conn: Connection, mailbox_id: int, renamed: Mapping[str, str]) -> None:
    """Gives held mails their new keys: old -> new."""
    if renamed:
        conn.execute(RENAME, {"id": mailbox_id, "old": list(renamed), "new": list(renamed.values())})


def count(conn: Connection, mailbox_id: int) -> Mapping[str, int]:
    """The numbers of mails held, of those that could not be fetched, and of those that share a Message-ID with others."""
    return dict(conn.execute(COUNT, {"id": mailbox_id, "conflict": CONFLICT}).mappings().one())
