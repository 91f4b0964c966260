"""Brings a database's schema to the newest version."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from ops.errors import OpsError
from ops.migrations import entry_copy
from ops.runtime.background import Chore
from ops.runtime.db import make_engine, sqlstate, transaction
from ops.runtime.schema_check import MIGRATIONS, WrongSchema, judge
from pipeline.store.admin import schema_version
from pipeline.store.admin.schema_version import Blocker

PATIENCE: Final = 60.0  # seconds for which the migration is tried again while other sessions hold locks that it needs
_LONGEST: Final = 6 * 3600.0  # seconds for one statement: building an index on a large table takes long
_POLL: Final = 0.5  # seconds between two queries for the sessions that block it
_COPIED_AT: Final = "0011"  # the version that has its entries copied from the table of the versions before
_TELL: Final = 10.0  # seconds between two lines about the copy's progress
_LOCK_CONFLICTS: Final = ("55P03", "40P01")  # SQLSTATE lock_not_available, deadlock_detected

Tell = Callable[[str], None]


class Unfit(OpsError):
    """The ledger has entries that could not be copied as they are."""


class StillRunning(OpsError):
    """Processes are connected whose statements the new schema would refuse."""


class LockedOut(OpsError):
    """Other sessions hold locks on tables that the migration must change."""


def migrate(database_url: str, tell: Tell = lambda _line: None, patience: float = PATIENCE) -> bool:
    """Bring the schema to its newest version, all steps in one transaction or none; returns whether it changed.

    The entries of a schema before 0011 are copied between two such transactions, in batches; a copy that was interrupted is
    continued by the next call, and no process starts before its end. Raises `Unfit` before anything has changed if an entry
    could not be copied as it is, and `StillRunning` while processes are connected that know only the old table.

    Waits three seconds for a lock that others hold, because later sessions queue behind us; then it rolls everything back and
    tries again, for `patience` seconds. `tell` receives lines that name the blocking sessions, and the copy's progress. Raises
    `LockedOut`, and `WrongSchema` for a schema that is newer than this program, or broken. The login must own the database, or
    be allowed to create roles and tables in `public`.
    """
    attempt = _Attempt(database_url, tell)
    try:
        changed = attempt.repeat(attempt.make, patience)
        while attempt.repeat(attempt.copy_some, patience):
            changed = True
        return attempt.repeat(attempt.make, patience) or changed
    except entry_copy.NotTheSame as error:
        raise Unfit(f"the ledger is not as `waxseal verify` wants it, and is left as it is: {error}") from error
    finally:
        attempt.close()


class _Attempt:
    """Migrates, while a second connection notes the sessions that block the first: afterwards they cannot be found out."""

    def __init__(self, database_url: str, tell: Tell) -> None:
        self._engine = make_engine(database_url, pool_size=1, statement_timeout=_LONGEST)
        self._observer = make_engine(database_url, pool_size=1)
        self._tell = tell
        self._blockers: list[Blocker] = []
        self._progress: _Progress | None = None

    def repeat(self, step: Callable[[], bool], patience: float) -> bool:
        """The step's result; it is repeated while others hold locks that it needs. Raises `LockedOut` when that lasts."""
        try:
            for each in Retrying(
                retry=retry_if_exception(lambda error: sqlstate(error) in _LOCK_CONFLICTS),
                stop=stop_after_delay(patience),
                wait=wait_exponential_jitter(multiplier=0.5, max=10.0, jitter=1.0),
                before_sleep=self.tell_blockers,
                reraise=True,
            ):
                with each:
                    result = step()
        except Exception as error:
            if sqlstate(error) not in _LOCK_CONFLICTS:
                raise
            raise LockedOut(self.advice(patience)) from error
        return result

    def make(self) -> bool:
        """All steps, or those up to the copy of entries that exist, which is not begun unless it can be done."""
        self._blockers = []
        with transaction(self._engine) as conn, self._watched(conn):
            schema_version.begin_change(conn)
            state, told = judge(schema_version.found(conn))
            if state in ("newer", "broken"):
                raise WrongSchema(told)
            if state == "current" or entry_copy.pending(conn):
                return False
            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS))
            config.attributes["connection"] = conn
            if not _is_copied(conn):
                _check_alone(conn)
                command.upgrade(config, _COPIED_AT)
            if entry_copy.pending(conn):
                self._tell("checks all entries before it copies them to their new table; nobody can append meanwhile")
                entry_copy.check(conn)
            else:
                command.upgrade(config, "head")
            return True

    def copy_some(self) -> bool:
        """One batch of entries, or the end of the copy; returns whether there was anything to do."""
        with transaction(self._engine) as conn, self._watched(conn):
            schema_version.begin_change(conn)
            if not entry_copy.pending(conn):
                return False
            if self._progress is None:
                self._progress = _Progress(entry_copy.sizes(conn), self._tell)
            copied = entry_copy.copy_batch(conn)
            if not copied:
                entry_copy.finish(conn)
        self._progress.add(copied)
        return True

    def tell_blockers(self, state: RetryCallState) -> None:
        pause = state.next_action.sleep if state.next_action else 0.0
        self._tell(f"waits for {self._blockers_text()}; tries again in {pause:.0f} s")

    def advice(self, patience: float) -> str:
        pids = " ".join(f"SELECT pg_terminate_backend({each.pid});" for each in self._blockers if each.pid)
        return (
            f"the schema was not changed: for {patience:.0f} s others held what it must lock, last {self._blockers_text()}. "
            f"Run `waxseal migrate` again when they have ended, or end them{': ' if pids else ''}{pids}"
        )

    def close(self) -> None:
        self._engine.dispose()
        self._observer.dispose()

    @contextmanager
    def _watched(self, conn: Connection) -> Iterator[None]:
        driver = conn.connection.driver_connection
        assert driver is not None
        pid: int = driver.info.backend_pid

        def look() -> None:
            with transaction(self._observer) as other:
                self._blockers = schema_version.blockers(other, pid) or self._blockers

        chore = Chore("blockers", _POLL, look)
        try:
            yield
        finally:
            chore.close()

    def _blockers_text(self) -> str:
        return "; ".join(map(_described, self._blockers)) or "a lock that somebody held"


class _Progress:
    """Tells how far the copy is: at its beginning, every few seconds, and at its end."""

    def __init__(self, sizes: entry_copy.Sizes, tell: Tell) -> None:
        self._sizes = sizes
        self._tell = tell
        self._done = sizes.new
        self._next = 0.0

    def add(self, copied: int) -> None:
        self._done += copied
        if not copied or time.monotonic() >= self._next:
            self._tell(f"{'copied' if copied else 'compared'} {self._done} of {self._sizes.old} entries")
            self._next = time.monotonic() + _TELL


def _check_alone(conn: Connection) -> None:
    """An older ingest process would take every refusal of the new table for the message's fault, and bury the message."""
    if found := schema_version.writers(conn):
        shown = ", ".join(found[:10])
        raise StillRunning(f"stop all processes first, this migration changes how entries are stored; connected: {shown}")


def _is_copied(conn: Connection) -> bool:
    """Whether the schema is at the version that has the entries in their new table, or at a later one."""
    return (schema_version.found(conn).versions or ("",))[0] >= _COPIED_AT


def _described(blocker: Blocker) -> str:
    if not blocker.pid:
        return "a prepared transaction (see pg_prepared_xacts)"
    who = ", ".join(part for part in (blocker.login, blocker.application, blocker.state) if part)
    since = "" if blocker.open_for is None else f", in a transaction for {blocker.open_for} s"
    statement = " ".join((blocker.statement or "").split())
    return f"pid {blocker.pid} ({who}{since}){': ' if statement else ''}{statement}"
