"""A database that tests use one after the other: each finds it as the migrations left it.

The conftest.py of a folder imports `database`, and perhaps `engine`: its tests get these instead of new ones.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

# In a replica no foreign key orders the deletions, and no trigger refuses them but the ledger's own, which are always
# enabled. The catalog's version goes on: a process may still hold the one before.
EMPTY = """DO $$ DECLARE name regclass; kept record; filled boolean; BEGIN
  SET LOCAL session_replication_role = replica;
  SET LOCAL lock_timeout = '30s';  -- a process that was killed holds its locks until the server notices
  FOR kept IN SELECT tgrelid::regclass AS name, tgname AS trigger FROM pg_trigger WHERE tgname IN ('append_only', 'kept') LOOP
    EXECUTE 'SELECT EXISTS (SELECT FROM ' || kept.name || ')' INTO filled;
    IF filled THEN
      EXECUTE 'ALTER TABLE ' || kept.name || ' DISABLE TRIGGER ' || kept.trigger;
      EXECUTE 'DELETE FROM ' || kept.name;
      EXECUTE 'ALTER TABLE ' || kept.name || ' ENABLE ALWAYS TRIGGER ' || kept.trigger;
    END IF;
  END LOOP;
  FOR name IN SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
              AND NOT relispartition AND relname NOT IN ('alembic_version', 'catalog') LOOP
    EXECUTE 'DELETE FROM ' || name;
  END LOOP;
  FOR name IN SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'S' LOOP
    PERFORM setval(name, 1, false);
  END LOOP;
  UPDATE catalog SET version = version + 1;
END $$"""


@pytest.fixture
def database(shared_database: Any) -> Iterator[Any]:
    """The database of the module, which is emptied after each test."""
    yield shared_database
    empty(shared_database)


@pytest.fixture
def engine(database: Any, shared_engine: Engine) -> Engine:
    """A pool on the test's database with the rights of a worker."""
    return shared_engine


def empty(database: Any) -> None:
    """Deletes all rows and starts the ids at 1 again. It costs a tenth of a new database."""
    database.run(EMPTY)
