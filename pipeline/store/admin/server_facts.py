"""Statements about the server that a backup needs: its version, what the login may, and what a backup could not hold."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

SERVER = text("""
    SELECT CAST(current_setting('server_version_num') AS int) / 10000 AS version, current_database() AS database,
           session_user AS login,
           (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = session_user) AS may_replicate,
           ARRAY(SELECT CAST(spcname AS text) FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global'))
           AS tablespaces""")


@dataclass(frozen=True, slots=True)
class Server:
    """The major version of the server, the database, the login and whether it may replicate, and additional tablespaces."""

    version: int
    database: str
    login: str
    may_replicate: bool
    tablespaces: Sequence[str]


def server(conn: Connection) -> Server:
    """What the server is."""
    return Server(**conn.execute(SERVER).mappings().one())
