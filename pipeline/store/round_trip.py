"""Statements given to the driver directly: several in one round trip, and small ones, which it runs faster."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import psycopg
from psycopg.generators import send
from psycopg.pq import TransactionStatus
from psycopg.rows import namedtuple_row
from sqlalchemy import Connection, TextClause, text
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from pipeline.store.binary_arrays import accept_arrays

# Begins SQLAlchemy's transaction: statements that bypass `Connection.execute` do not, and would not be committed.
NOTHING = text("SELECT")

Query = tuple[TextClause, Mapping[str, Any]]

_DIALECT = PGDialect_psycopg()  # type: ignore[no-untyped-call]


def together(conn: Connection, asked: Sequence[Query], *, binary: bool = False) -> list[list[tuple[Any, ...]]]:
    """The rows of each statement, in order. The statements run one after the other, each with its own snapshot.

    Raises the driver's exception for the first that fails; no later one is executed.
    """
    if not conn.in_transaction():
        conn.execute(NOTHING)
    driver = conn.connection.driver_connection
    assert driver is not None
    accept_arrays(driver)
    with _packet(driver):
        cursors = [driver.execute(compiled(statement), given, binary=binary) for statement, given in asked]
    return [cursor.fetchall() if cursor.description else [] for cursor in cursors]


def fetched(conn: Connection, statement: TextClause, given: Mapping[str, Any]) -> list[Any]:
    """The rows of one statement, as named tuples. Raises the driver's exceptions."""
    driver = conn.connection.driver_connection
    assert driver is not None
    if not (driver.autocommit or conn.in_transaction()):
        conn.execute(NOTHING)
    try:
        return list(driver.cursor(row_factory=namedtuple_row).execute(compiled(statement), given).fetchall())
    except psycopg.Error:
        if driver.closed:
            conn.invalidate()  # SQLAlchemy, which did not see the error, would keep it in the pool
        raise


@contextmanager
def _packet(driver: psycopg.Connection[Any]) -> Iterator[None]:
    """Sends the block's statements together at its end, after a BEGIN if needed, for which psycopg would wait separately."""
    commits = driver.autocommit
    driver._pipeline = _Packet(driver)  # noqa: SLF001 - `pipeline` uses this instead of its own
    driver._autocommit = True  # noqa: SLF001 - we send BEGIN ourselves
    try:
        with driver.pipeline():
            if not commits and driver.info.transaction_status == TransactionStatus.IDLE:
                driver.execute("BEGIN", prepare=False)
            yield
    finally:
        driver._autocommit = commits  # noqa: SLF001


class _Packet(psycopg.Pipeline):
    """Sends all statements at once: psycopg's own class sends each alone, so server and client wake for each of them."""

    def _communicate_gen(self) -> Generator[Any, Any, None]:
        if self.command_queue and self.command_queue[-1] == self.pgconn.pipeline_sync:
            commands = list(self.command_queue)
            self.command_queue.clear()
            self.command_queue.append(partial(_all_of, commands))
            yield from super()._communicate_gen()

    def _fetch_gen(self, *, flush: bool) -> Generator[Any, Any, None]:
        """Without the Flush that psycopg sends after its Sync.

        Postgres stops the clock of idle_in_transaction_session_timeout at that message and does not start it again, because
        nothing follows that it would be ready for: a process that stood still then kept its locks. But what does not fit into
        the socket's buffer has to be sent before an answer is waited for: with the Flush psycopg would do that.
        """
        if flush:
            yield from send(self.pgconn)
        yield from super()._fetch_gen(flush=False)


def _all_of(commands: Sequence[Callable[[], None]]) -> None:
    for command in commands:
        command()


@lru_cache(256)
def compiled(statement: TextClause) -> str:
    """The statement as the driver takes it."""
    return str(statement.compile(dialect=_DIALECT))
