"""Connections to Postgres, and the only COMMIT."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Final, TypeVar

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from ops.runtime.connection_name import CONNECTION_NAME
from ops.runtime.driver import db_deadline
from ops.server_urls import PASSWORD_FILE, read_password, split_files

__all__ = [
    "CHECK_VIOLATION",
    "UNIQUE_VIOLATION",
    "Connection",
    "Engine",
    "Joined",
    "Pool",
    "alone",
    "constraint",
    "damaged",
    "lacks_partition",
    "make_engine",
    "passes",
    "persist",
    "sqlstate",
    "transaction",
]

_Result = TypeVar("_Result")

IDLE: Final = 1.0  # seconds idle, after which a connection is pinged when it is taken from the pool

PLANS_KEPT: Final = 1.0  # seconds

#: No cached plans: on a new table a cached plan keeps the size that it first saw, and lookups then scan. A process that stands
#: still in a transaction holds locks for which others wait, chain heads among them; it loses them soon, and tries again.
SESSION = "-c plan_cache_mode=force_custom_plan -c statement_timeout=60s -c idle_in_transaction_session_timeout=10s"

#: Who only reads is one of many, beside those who record: each statement along indexes, whatever the statistics of its tables
#: say, on one processor, and not compiled, which takes longer than most of them.
READS = "-c default_transaction_read_only=on -c enable_seqscan=off -c max_parallel_workers_per_gather=0 -c jit=off"


class Pool(QueuePool):
    """A pool that tells `waited` how many seconds each caller waited for its connection, with connecting if the pool grew."""

    waited: Callable[[float], None] | None = None

    def _do_get(self) -> ConnectionPoolEntry:
        if self.waited is None:
            return super()._do_get()
        began = time.monotonic()
        try:
            return super()._do_get()
        finally:
            self.waited(time.monotonic() - began)


#: When the kernel ends a connection to a host that has gone; seconds, but for the last, which is in milliseconds.
_PROBES: Final = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}


def make_engine(
    database_url: str,
    *,
    pool_size: int = 5,
    statement_timeout: float = 60.0,
    connections: type[db_deadline.Connection] = db_deadline.Connection,
    keep_plans: bool = False,
    reads_as: str | None = None,
    pooled: bool = False,
    moving: str | None = None,
) -> Engine:
    """A pool of at most `pool_size` connections; connecting gives up after 5 s, a statement after `statement_timeout` s.

    If `database_url` names a file of the password, each new connection reads it.

    A connection that died while it was idle is detected and replaced when it is taken from the pool. On a frozen server a
    statement is given up within ten seconds, whatever `statement_timeout` is. `connections` is the class of the connections.
    `keep_plans` is for a few short, frequent statements that take longer to plan than to run: their plans are kept for a
    second, and each of them is its own transaction (`alone`). `reads_as` names a role that the login is a member of: with
    its rights alone the connections read, along indexes, and cannot write. `pooled`: the URL leads to a pooler that gives each
    transaction another connection: nothing is set for a session, and the login has to have the timeouts. `moving`: the id of a
    move of a tenant, for which these connections may append though it is frozen, if the login is the database's owner.
    """
    plain, files = split_files(database_url, (PASSWORD_FILE,))
    url = make_url(plain).set(drivername="postgresql+psycopg")
    options = _session(statement_timeout, keep_plans=keep_plans, reads_as=reads_as, moving=moving)
    engine = create_engine(
        url,
        isolation_level="AUTOCOMMIT" if keep_plans else None,  # so that `alone` need not switch it on and off
        poolclass=Pool,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=10,
        hide_parameters=True,  # errors are logged; parameters may hold message contents
        connect_args={
            "connect_timeout": 5,
            **({"prepare_threshold": None} if pooled else {"options": options}),
            "application_name": CONNECTION_NAME.text,
            **_PROBES,
        },
    )
    if keep_plans:
        event.listen(engine, "checkout", _plan_anew)  # and so no ping
    else:
        event.listen(engine, "checkin", _note_idle)
        event.listen(engine, "checkout", partial(_ping_idle, engine))
    event.listen(engine, "do_connect", partial(_connect, connections, files.get(PASSWORD_FILE), statement_timeout, pooled))
    return engine


def _connect(
    kind: type[db_deadline.Connection],
    password_file: str | None,
    statement_timeout: float,
    pooled: bool,
    _dialect: Any,
    _record: Any,
    args: Any,
    options: Any,
) -> db_deadline.Connection:
    made = db_deadline.connect(kind, args, options | _password(password_file), statement_timeout)
    if pooled:
        _check_timeouts(made)
    return made


def _check_timeouts(made: db_deadline.Connection) -> None:
    """Refuse a login without its own timeouts: a pooler drops those that a client asks for, without a word."""
    names = {"statement_timeout": 60, "idle_in_transaction_session_timeout": 10}
    asked = ", ".join(f"EXTRACT(epoch FROM CAST(current_setting('{name}') AS interval))" for name in names)
    found = made.execute(f"SELECT {asked}").fetchone() or ()
    made.rollback()
    login = made.info.user
    for (name, most), seconds in zip(names.items(), found, strict=True):
        if not 0 < seconds <= most:
            made.close()
            raise psycopg.OperationalError(
                f"behind the pooler {name} is {float(seconds):g} s: ALTER ROLE {login} SET {name} = '{most}s'"
            )


def _password(path: str | None) -> dict[str, str]:
    """The password that the file holds now; a file that is being replaced may be there at the next try."""
    try:
        return {} if path is None else {"password": read_password(path)}
    except OSError as error:
        raise psycopg.OperationalError(f"the password cannot be read: {error}") from None


def _session(statement_timeout: float, *, keep_plans: bool, reads_as: str | None, moving: str | None) -> str:
    options = SESSION.replace("statement_timeout=60s", f"statement_timeout={int(statement_timeout * 1000)}")
    if keep_plans:
        options = options.replace("force_custom_plan", "force_generic_plan")
    options += "" if moving is None else f" -c waxseal.moving={moving}"
    return options if reads_as is None else f"{options} -c role={reads_as} {READS}"


def _note_idle(_connection: Any, record: Any) -> None:
    record.info["idle_since"] = time.monotonic()


def _ping_idle(engine: Engine, connection: Any, record: Any, _proxy: Any) -> None:
    """Ping only after idling: a ping doubles the round trips of a short transaction, and a busy connection needs none."""
    if time.monotonic() - record.info.get("idle_since", float("inf")) < IDLE:
        return
    try:
        engine.dialect.do_ping(connection)
    except psycopg.Error as error:
        raise DisconnectionError(str(error)) from error


def _plan_anew(connection: Any, record: Any, _proxy: Any) -> None:
    """Discard plans that are older than a second: the tables may have been much smaller then. Says also that it lives."""
    now = time.monotonic()
    if now - record.info.get("planned_at", float("-inf")) < PLANS_KEPT:
        return
    try:
        connection.execute("DISCARD PLANS")
    except psycopg.Error as error:
        raise DisconnectionError(str(error)) from error
    record.info["planned_at"] = now


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """A connection in a transaction that is committed when the block ends, and rolled back when it raises."""
    with engine.begin() as conn:
        yield conn


class Joined:
    """Stands for an engine, so that several acts are one: what they write is committed with the transaction of `conn`."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A part of the transaction: undone when the block raises."""
        with self._conn.begin_nested():
            yield self._conn

    def execution_options(self, **_options: object) -> "Joined":
        """The transaction's own hold."""
        return self


@contextmanager
def alone(engine: Engine) -> Iterator[Connection]:
    """A connection for a single statement, which is its own transaction: a third of the round trips."""
    with engine.connect() as conn:
        driver = conn.connection.driver_connection
        yield conn if driver is not None and driver.autocommit else conn.execution_options(isolation_level="AUTOCOMMIT")


#: SQLSTATE classes of transient errors: connection, transaction rollback, resources, operator intervention, lock not available;
#: a write on a standby; and a transaction that Postgres ended because this process stood still in it.
_PASSING = ("08", "25006", "25P03", "40", "53", "55", "57")
UNIQUE_VIOLATION = "23505"
CHECK_VIOLATION = "23514"


def sqlstate(error: BaseException) -> str:
    """The SQLSTATE of `error`; empty when it does not come from Postgres."""
    return getattr(_cause(error), "sqlstate", None) or ""


def constraint(error: BaseException) -> str | None:
    """The name of the violated constraint, if `error` names one."""
    cause = _cause(error)
    return cause.diag.constraint_name if isinstance(cause, psycopg.Error) else None


def lacks_partition(error: BaseException) -> bool:
    """Whether a row's table has no partition for it. Unlike this error, that of a violated CHECK names a constraint."""
    cause = _cause(error)
    return sqlstate(cause) == CHECK_VIOLATION and isinstance(cause, psycopg.Error) and constraint(cause) is None


def passes(error: BaseException) -> bool:
    """Whether `error` is transient: the same transaction may succeed when it is tried again."""
    cause = _cause(error)
    if sqlstate(cause):
        return sqlstate(cause).startswith(_PASSING)
    return isinstance(cause, PoolTimeout | psycopg.OperationalError | psycopg.InterfaceError)


#: SQLSTATE classes of storage that Postgres cannot use: a torn page or a damaged index, and I/O errors.
_DAMAGED = ("XX", "58")


def damaged(error: BaseException) -> bool:
    """Whether Postgres cannot read or write its own files: the same statement fails until somebody mends them."""
    return sqlstate(error).startswith(_DAMAGED)


def persist(
    engine: Engine,
    seconds: float,
    work: Callable[[Connection], _Result],
    *,
    lost: Callable[[BaseException | None, int], None] = lambda _error, _tries: None,
    longest: float = 2.0,
    within: Callable[[Engine], AbstractContextManager[Connection]] = transaction,
) -> _Result:
    """Run `work` in a transaction, commit it and return the result; retry transient errors (`passes`) for `seconds`.

    `lost` is called with each failure, and the number of tries so far, before the next try; `longest` is the longest wait
    between two tries, in seconds. With `alone`, `work` must be a single statement. Raises the last failure.
    """
    for attempt in Retrying(
        retry=retry_if_exception(passes),
        stop=stop_after_delay(seconds),
        wait=wait_exponential_jitter(multiplier=0.05, max=longest, jitter=longest / 10),
        before_sleep=lambda state: lost(state.outcome.exception() if state.outcome else None, state.attempt_number),
        reraise=True,
    ):
        with attempt, within(engine) as conn:
            result = work(conn)
    return result


def _cause(error: BaseException) -> BaseException:
    """The driver's own error: COPY raises it directly, everything else through SQLAlchemy."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
