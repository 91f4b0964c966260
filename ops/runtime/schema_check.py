"""Whether a database has the schema that this program was written for.

Exactly that one: nothing is promised about others. A process looks when it starts and never again, so those that run go on
while a migration, which must leave their statements valid, is followed by new processes.
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

from ops.errors import OpsError
from ops.runtime.db import make_engine, passes
from pipeline.store.admin import schema_version
from pipeline.store.admin.schema_version import Found

MIGRATIONS: Final = Path(__file__).parents[1] / "migrations"
_AGAIN: Final = 2.0  # seconds until a database that was away at the start is looked at again
_SECONDS: Final = 5.0  # for one look

State = Literal["current", "empty", "older", "newer", "broken"]

_log = structlog.get_logger()


class WrongSchema(OpsError):
    """The schema is not the one that this program was written for."""


@cache
def known() -> Sequence[str]:
    """The versions, oldest first: each is a file whose name begins with it. Alembic would take 100 ms and 10 MiB to say it."""
    return sorted(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def judge(found: Found) -> tuple[State, str]:
    """What state the schema is in, and in one line what to do about it."""
    versions = found.versions or ()
    if not versions and not found.filled:
        return "empty", "the database does not have Waxseal's schema: run `waxseal migrate`"
    if found.versions is None:
        return "broken", "the database has Waxseal's tables but not the table alembic_version: restore it from a backup"
    if len(versions) != 1:
        rows = ", ".join(versions) or "nothing"
        return "broken", f"the table alembic_version must hold one version and holds {rows}: restore it from a backup"
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
    """For the life of a process, which does not begin with a wrong schema. Raises `WrongSchema`.

    While the database is away the process begins all the same, as it can wait for it; should the schema then turn out to be
    wrong, the process is asked to stop, and this raises when it has.
    """
    late: _Late | None = None
    try:
        _look(database_url)
    except Exception as error:
        if not passes(error):
            raise
        late = _Late(database_url)
    try:
        yield
    finally:
        if late is not None:
            late.close()
    if late is not None and late.refusal is not None:
        raise late.refusal


def _look(database_url: str) -> None:
    engine = make_engine(database_url, pool_size=1, statement_timeout=_SECONDS)
    try:
        check_engine(engine)
    finally:
        engine.dispose()


class _Late:
    """Looks again and again, until the database is there."""

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
                _look(self._database_url)
            except Exception as error:  # noqa: BLE001 - what passes is tried again; of the rest the process dies
                if not passes(error):
                    _log.error("schema_refused", reason=str(error).partition("\n")[0])
                    self.refusal = error
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
            else:
                return
