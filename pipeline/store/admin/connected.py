"""Which processes are connected to the database: Postgres itself knows, so that they need not write it."""

from collections.abc import Sequence

from sqlalchemy import Connection, text

# Whoever may log in sees the names of all sessions, and may give his own any name.
NAMES = text("""
    SELECT DISTINCT application_name AS name FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'waxseal %' ORDER BY 1""")


def names(conn: Connection) -> Sequence[str]:
    """The names of their connections, each once."""
    return [row.name for row in conn.execute(NAMES)]
