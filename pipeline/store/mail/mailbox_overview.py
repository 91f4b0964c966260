"""Statements that show mailboxes: their states, their progress, and which may be listened to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text
from sqlalchemy import RowMapping as Row

from schemas.mailbox import EVERY_FOLDER

LIST = text("""
    SELECT mailbox.id, tenant.name AS tenant, source.name, source.kind, state, reason, state_at, failures, failing_since, error,
      slow, began_at, pulled_at, next_pull_at, reconciled_at, lease_owner, lease_until,
      mailbox.settings ->> 'username' AS username,
      cursors.done, cursors.total, cursors.folders, cursors.unfinished,
      (SELECT count(*) FROM mailbox_folder_error WHERE mailbox_id = mailbox.id) AS unreadable
    FROM mailbox JOIN source USING (id) JOIN tenant ON tenant.id = source.tenant_id
    LEFT JOIN LATERAL (
      SELECT sum(done) AS done, CASE WHEN count(*) = count(total) THEN sum(total) END AS total, count(*) AS folders,
        count(*) FILTER (WHERE finished_at IS NULL AND NOT EXISTS (
          SELECT FROM mailbox_folder_error AS failed
          WHERE failed.mailbox_id = mailbox.id AND failed.folder = mailbox_cursor.folder)) AS unfinished
      FROM mailbox_cursor WHERE mailbox_id = mailbox.id AND lane = 'backfill'
    ) AS cursors ON true
    WHERE (CAST(:tenant AS text) IS NULL OR tenant.name = :tenant) AND (CAST(:name AS text) IS NULL OR source.name = :name)
    ORDER BY tenant.name, source.name""")

FOLDERS = text("""
    SELECT folder, lane, done, total, begun_at, moved_at, finished_at FROM mailbox_cursor WHERE mailbox_id = :id
    ORDER BY folder, lane DESC""")

STATES = text("""
    SELECT CASE WHEN state = 'active' AND failures > 0 THEN 'failing' ELSE state END AS condition, count(*)
    FROM mailbox GROUP BY 1""")

# Failing mailboxes are among the due ones only when their time has come.
DUE = text("""
    SELECT count(*), min(next_pull_at) FROM mailbox WHERE state = 'active' AND next_pull_at <= :now AND lease_owner IS NULL""")

TROUBLED = text("""
    SELECT tenant.name AS tenant, source.name, state, reason, failures, failing_since, error, next_pull_at,
      (SELECT count(*) FROM mailbox_folder_error WHERE mailbox_id = mailbox.id) AS unreadable
    FROM mailbox JOIN source USING (id) JOIN tenant ON tenant.id = source.tenant_id
    WHERE state = 'needs_reauthorization' OR (state = 'active' AND (failures > 0 OR next_pull_at < :late
      OR EXISTS (SELECT FROM mailbox_folder_error WHERE mailbox_id = mailbox.id)))
    ORDER BY state = 'active', failures DESC, tenant.name, source.name LIMIT :limit""")


# The digest changes when a listener must reconnect. It is not a secret, and is not shown to anyone.
LISTENED_TO = text("""
    SELECT mailbox.id, md5(mailbox.settings::text || encode(credentials, 'hex')) AS digest,
      mailbox.settings -> 'folders' AS folders,
      CASE WHEN mailbox.settings -> 'folders' @> '["*"]' THEN ARRAY(
        SELECT folder FROM mailbox_cursor WHERE mailbox_id = mailbox.id AND lane = 'new' ORDER BY folder <> 'INBOX', folder
      ) END AS every,
      ARRAY(SELECT folder FROM mailbox_folder_error WHERE mailbox_id = mailbox.id) AS unreadable
    FROM mailbox JOIN source USING (id)
    WHERE source.kind = 'imap' AND state = 'active' AND failures = 0 AND pulled_at IS NOT NULL
    ORDER BY mailbox.id""")


@dataclass(frozen=True, slots=True)
class Listened:
    """A mailbox that may be listened to: a digest of its configuration, and its folders, the most important first."""

    id: int
    digest: str
    folders: Sequence[str]


def mailboxes(conn: Connection, tenant: str | None, name: str | None = None) -> Sequence[Row]:
    """The mailboxes with their progress; `tenant` and `name` restrict them."""
    return conn.execute(LIST, {"tenant": tenant, "name": name}).mappings().all()


def folders(conn: Connection, mailbox_id: int) -> Sequence[Row]:
    """How far each lane of each folder is read."""
    return conn.execute(FOLDERS, {"id": mailbox_id}).mappings().all()


def states(conn: Connection) -> Mapping[str, int]:
    """The numbers of mailboxes that are active, failing, paused, and that need reauthorization."""
    return {row[0]: row[1] for row in conn.execute(STATES)}


def due(conn: Connection, now: datetime) -> tuple[int, datetime | None]:
    """How many mailboxes are due and not being pulled, and since when the first is."""
    row = conn.execute(DUE, {"now": now}).one()
    return row[0], row[1]


def troubled(conn: Connection, late: datetime, limit: int) -> Sequence[Row]:
    """Mailboxes that need somebody, fail, have unreadable folders, or are due since before `late`."""
    return conn.execute(TROUBLED, {"late": late, "limit": limit}).mappings().all()


def listened_to(conn: Connection) -> Sequence[Listened]:
    """The active IMAP mailboxes whose last pull succeeded, with their readable folders."""
    return [
        Listened(row.id, row.digest, [each for each in row.every or row.folders if each not in (EVERY_FOLDER, *row.unreadable)])
        for row in conn.execute(LISTENED_TO)
    ]
