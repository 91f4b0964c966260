"""Brings a database's schema to the newest version."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from ops.db import make_engine, transaction

#: Any number that nothing else on the database locks: two migrations at once wait for each other.
MIGRATION_LOCK = 0x5761787365616C


def migrate(database_url: str) -> None:
    """Brings the schema to its newest version, all steps in one transaction; nothing changes when one fails.

    The login must own the database or be allowed to create tables in `public` and roles.
    """
    engine = make_engine(database_url, pool_size=1)
    try:
        with transaction(engine) as conn:
            conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            config = _config()
            config.attributes["connection"] = conn
            command.upgrade(config, "head")
    finally:
        engine.dispose()


def pending(conn: Connection) -> bool:
    """Whether the schema is older than this program."""
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    return MigrationContext.configure(conn).get_current_revision() != newest


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
