"""Brings a database's schema to the newest version."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from ops.errors import OpsError
from ops.runtime.background import Chore
from ops.runtime.db import make_engine, sqlstate, transaction
from ops.runtime.schema_check import MIGRATIONS, WrongSchema, judge
from pipeline.store.admin import schema_version
from pipeline.store.admin.schema_version import Blocker

PATIENCE: Final = 60.0  # seconds for which the migration is tried again while other sessions hold locks that it needs
_LONGEST: Final = 6 * 3600.0  # seconds for one statement: building an index on a large table takes long
_POLL: Final = 0.5  # seconds between two queries for the sessions that block it
_LOCK_CONFLICTS: Final = ("55P03", "40P01")  # SQLSTATE lock_not_available, deadlock_detected

Tell = Callable[[str], None]


class LockedOut(OpsError):
    """Other sessions hold locks on tables that the migration must change."""


def migrate(database_url: str, tell: Tell = lambda _line: None, patience: float = PATIENCE) -> bool:
    """Bring the schema to its newest version, all steps in one transaction or none; returns whether it changed.

    Waits three seconds for a lock that others hold, because later sessions queue behind us; then it rolls everything back and
    tries again, for `patience` seconds. `tell` receives lines that name the blocking sessions. Raises `LockedOut`, and
    `WrongSchema` for a schema that is newer than this program, or broken. The login must own the database, or be allowed to
    create roles and tables in `public`.
    """
    attempt = _Attempt(database_url, tell)
    try:
        for each in Retrying(
            retry=retry_if_exception(lambda error: sqlstate(error) in _LOCK_CONFLICTS),
            stop=stop_after_delay(patience),
            wait=wait_exponential_jitter(multiplier=0.5, max=10.0, jitter=1.0),
            before_sleep=attempt.tell_blockers,
            reraise=True,
        ):
            with each:
                changed = attempt.make()
    except Exception as error:
        if sqlstate(error) not in _LOCK_CONFLICTS:
            raise
        raise LockedOut(attempt.advice(patience)) from error
    finally:
        attempt.close()
    return changed


class _Attempt:
    """Migrates, while a second connection notes the sessions that block the first: afterwards they cannot be found out."""

    def __init__(self, database_url: str, tell: Tell) -> None:
        self._engine = make_engine(database_url, pool_size=1, statement_timeout=_LONGEST)
        self._observer = make_engine(database_url, pool_size=1)
        self._tell = tell
        self._blockers: list[Blocker] = []

    def make(self) -> bool:
        self._blockers = []
        with transaction(self._engine) as conn, self._watched(conn):
            schema_version.begin_change(conn)
            state, told = judge(schema_version.found(conn))
            if state in ("newer", "broken"):
                raise WrongSchema(told)
            if state == "current":
                return False
            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS))
            config.attributes["connection"] = conn
            command.upgrade(config, "head")
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


def _described(blocker: Blocker) -> str:
    if not blocker.pid:
        return "a prepared transaction (see pg_prepared_xacts)"
    who = ", ".join(part for part in (blocker.login, blocker.application, blocker.state) if part)
    since = "" if blocker.open_for is None else f", in a transaction for {blocker.open_for} s"
    statement = " ".join((blocker.statement or "").split())
    return f"pid {blocker.pid} ({who}{since}){': ' if statement else ''}{statement}"
