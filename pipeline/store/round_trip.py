"""Several statements in one round trip, where none needs the answer of the one before it."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, TextClause, text
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

# Begins the caller's transaction: what is sent past `Connection.execute` does not, and would not be committed.
NOTHING = text("SELECT")

Asked = tuple[TextClause, Mapping[str, Any]]

_DIALECT = PGDialect_psycopg()  # type: ignore[no-untyped-call]


def together(conn: Connection, asked: Sequence[Asked]) -> list[list[tuple[Any, ...]]]:
    """The rows of each statement, in order. They are executed one after the other, each with a snapshot of its own.

    Raises what the driver raises for the first that fails; none behind it is executed.
    """
    if not conn.in_transaction():
        conn.execute(NOTHING)
    driver = conn.connection.driver_connection
    assert driver is not None
    with _packet(driver):
        cursors = [driver.execute(_compiled(statement), given) for statement, given in asked]
    return [cursor.fetchall() if cursor.description else [] for cursor in cursors]


@contextmanager
def _packet(driver: psycopg.Connection[Any]) -> Iterator[None]:
    """What is executed in the block is sent at its end, behind a BEGIN if need be, for which psycopg would wait by itself."""
    commits = driver.autocommit
    driver._pipeline = _Packet(driver)  # noqa: SLF001 - what `pipeline` takes where there is one
    driver._autocommit = True  # noqa: SLF001 - BEGIN is ours
    try:
        with driver.pipeline():
            if not commits and driver.info.transaction_status == TransactionStatus.IDLE:
                driver.execute("BEGIN", prepare=False)
            yield
    finally:
        driver._autocommit = commits  # noqa: SLF001


class _Packet(psycopg.Pipeline):
    """psycopg's own sends each statement by itself, so that the server wakes for each, and this thread waits for each."""

    def _communicate_gen(self) -> Generator[Any, Any, None]:
        if self.command_queue and self.command_queue[-1] == self.pgconn.pipeline_sync:
            commands = list(self.command_queue)
            self.command_queue.clear()
            self.command_queue.append(partial(_all_of, commands))
            yield from super()._communicate_gen()


def _all_of(commands: Sequence[Callable[[], None]]) -> None:
    for command in commands:
        command()


@lru_cache(256)
def _compiled(statement: TextClause) -> str:
    return str(statement.compile(dialect=_DIALECT))
