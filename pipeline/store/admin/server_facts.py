"""Statements about the server that a backup needs: its version, what the login may, and how its write-ahead log is archived."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

SERVER = text("""
    SELECT CAST(current_setting('server_version_num') AS int) / 10000 AS version, current_database() AS database,
           session_user AS login,
           (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = session_user) AS may_replicate,
           ARRAY(SELECT CAST(spcname AS text) FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global'))
           AS tablespaces,
           (SELECT CAST(system_identifier AS text) FROM pg_control_system()) AS system,
           (SELECT CAST(setting AS int) FROM pg_settings WHERE name = 'wal_segment_size') AS segment_bytes,
           coalesce(current_setting('waxseal.wal_archive', true), '') AS archive""")

NOW = text("SELECT clock_timestamp()")

#: The name of the file that is being written has the timeline, which is the same for all that are archived.
ARCHIVING = text("""
    SELECT current_setting('archive_mode') <> 'off' AND NOT pg_is_in_recovery() AS wanted,
           coalesce(current_setting('waxseal.wal_archive', true), '') AS place,
           last_archived_time AS archived_at, failed_count AS failures,
           coalesce(last_failed_time > last_archived_time, last_failed_time IS NOT NULL) AS failing, last_failed_wal AS failed,
           CASE WHEN pg_is_in_recovery() OR length(last_archived_wal) <> 24 THEN NULL
             ELSE CAST(greatest(0, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')
               - (CAST('x' || lpad(substr(last_archived_wal, 9, 8), 16, '0') AS bit(64))::bigint * 4294967296
                 + (CAST('x' || lpad(substr(last_archived_wal, 17, 8), 16, '0') AS bit(64))::bigint + 1)
                 * (SELECT CAST(setting AS bigint) FROM pg_settings WHERE name = 'wal_segment_size'))) AS bigint)
           END AS behind
    FROM pg_stat_archiver""")

RESTORE_POINT = text("SELECT CAST(pg_create_restore_point(:name) AS text)")


@dataclass(frozen=True, slots=True)
class Server:
    """The major version of the server, the database, the login and whether it may replicate, and additional tablespaces.

    `system` names its write-ahead log of all servers', whose files have `segment_bytes`; `archive` is where `waxseal up` has
    them archived, empty if it does not.
    """

    version: int
    database: str
    login: str
    may_replicate: bool
    tablespaces: Sequence[str]
    system: str
    segment_bytes: int
    archive: str


@dataclass(frozen=True, slots=True)
class Archiving:
    """How the server archives its write-ahead log, if it is `wanted`; `place` is known of our own servers only.

    `behind`: the bytes that are not archived yet, None if that is not known; `failing`: the last attempt failed.
    """

    wanted: bool
    place: str
    archived_at: datetime | None
    failures: int
    failing: bool
    failed: str | None
    behind: int | None


def server(conn: Connection) -> Server:
    """What the server is."""
    return Server(**conn.execute(SERVER).mappings().one())


def now(conn: Connection) -> datetime:
    """The server's clock."""
    found: datetime = conn.execute(NOW).scalar_one()
    return found


def archiving(conn: Connection) -> Archiving:
    """How it archives its write-ahead log; every login may ask."""
    return Archiving(**conn.execute(ARCHIVING).mappings().one())


def mark(conn: Connection, name: str) -> str:
    """Make a restore point of this name; gives its position in the write-ahead log."""
    return str(conn.execute(RESTORE_POINT, {"name": name}).scalar_one())
