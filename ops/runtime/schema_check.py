"""Checks that a database has the schema that this program was written for, and no other.

A process checks when it starts and never again. So running processes go on during a migration, which must leave their
statements valid, until new processes replace them.
"""

import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final, Literal

import structlog
from sqlalchemy import Connection, Engine

from ops.errors import OpsError, one_line
from ops.runtime.db import make_engine, passes
from pipeline.store.admin import schema_version
from pipeline.store.admin.schema_version import Found

MIGRATIONS: Final = Path(__file__).parents[1] / "migrations"
_AGAIN: Final = 2.0  # seconds between two checks of a database that could not be reached at the start
_SECONDS: Final = 5.0  # for a statement of a check

State = Literal["current", "empty", "older", "newer", "broken"]

_log = structlog.get_logger()


class WrongSchema(OpsError):
    """The schema is not the one that this program was written for."""


@cache
def known() -> Sequence[str]:
    """The versions, oldest first, from the names of the migration files. Alembic would need 100 ms and 10 MiB for this."""
    return sorted(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def judge(found: Found) -> tuple[State, str]:
    """The state of the schema, and in one line what to do about it."""
    versions = found.versions or ()
    if not versions and not found.filled:
        return "empty", "the database does not have Waxseal's schema: run `waxseal migrate`"
    if found.versions is None:
        return "broken", "the database has Waxseal's tables but not the table alembic_version: restore it from a backup"
    if len(versions) != 1:
        rows = ", ".join(versions) or "nothing"
        return "broken", f"the table alembic_version must hold one version and holds {rows}: restore it from a backup"
    if found.copying and versions[0] in known():
        return "older", "a migration has not copied all entries yet: run `waxseal migrate`, which continues it"
    return _compared(versions[0], known())


def _compared(version: str, ours: Sequence[str]) -> tuple[State, str]:
    newest = ours[-1]
    if version == newest:
        return "current", "the schema is at its newest version"
    if version in ours:
        return "older", f"the database's schema is at {version}, this waxseal needs {newest}: run `waxseal migrate`"
    if re.fullmatch(r"\d{4}", version) and version > newest:
        return "newer", f"the database's schema is at {version}, this waxseal knows only {newest}: use a newer waxseal"
    return "broken", f"the table alembic_version holds {version!r}, which is no version of Waxseal: restore it from a backup"


def check(conn: Connection) -> None:
    """Raise `WrongSchema` unless the schema is the one that this program was written for."""
    state, told = judge(schema_version.found(conn))
    if state != "current":
        raise WrongSchema(told)


def check_engine(engine: Engine) -> None:
    """As `check`, over a connection of a pool."""
    with engine.connect() as conn:
        check(conn)


@contextmanager
def fitting(database_url: str) -> Iterator[None]:
    """Check the schema before the block, which is the work of a process, begins. Raises `WrongSchema`.

    If the database cannot be reached, the block begins all the same, as the process can wait for it, and the check is repeated.
    If the schema then turns out to be wrong, the process gets a SIGTERM, and this raises when the block has ended.
    """
    late: _LateCheck | None = None
    try:
        _check_database(database_url)
    except Exception as error:
        if not passes(error):
            raise
        late = _LateCheck(database_url)
    try:
        yield
    finally:
        if late is not None:
            late.close()
    if late is not None and late.refusal is not None:
        raise late.refusal


def _check_database(database_url: str) -> None:
    engine = make_engine(database_url, pool_size=1, statement_timeout=_SECONDS)
    try:
        check_engine(engine)
    finally:
        engine.dispose()


class _LateCheck:
    """Repeats the check until the database can be reached."""

    def __init__(self, database_url: str) -> None:
        self.refusal: Exception | None = None
        self._database_url = database_url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="schema", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        while not self._stop.wait(_AGAIN):
            try:
                _check_database(self._database_url)
            except Exception as error:  # noqa: BLE001 - transient errors are retried; any other ends the process
                if not passes(error):
                    _log.error("schema_refused", reason=one_line(error))
                    self.refusal = error
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
            else:
                return
