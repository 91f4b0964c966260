"""Connections to Postgres: one that died while idle is replaced, and busy ones are not checked."""

import os
import time
from collections.abc import Iterator
from functools import partial
from urllib.parse import urlsplit

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from ops.runtime import db
from ops.runtime.db import alone, make_engine, passes, persist, transaction
from ops.runtime.driver import db_deadline, db_timelines
from ops.server_urls import database_url
from pipeline.store.binary_arrays import bigint_array, hash_array, uuid_array
from pipeline.store.round_trip import fetched, together
from support.net.round_trips import counting
from support.sessions import end_connections


@pytest.fixture
def single(database) -> Iterator[Engine]:
    """A pool of one connection."""
    engine = make_engine(database.worker_url, pool_size=1)
    yield engine
    engine.dispose()


def backend(engine: Engine) -> int:
    with transaction(engine) as conn:
        return int(conn.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())


def test_of_several_hosts_only_the_one_that_is_in_use_is_asked_whether_it_answers(database) -> None:
    parts = urlsplit(database.worker_url)
    login, _, host = parts.netloc.rpartition("@")
    engine = make_engine(database_url(f"postgresql://{login}@127.0.0.1:1,{host}{parts.path}?target_session_attrs=read-write"))
    with engine.connect() as conn:
        driver = conn.connection.driver_connection
        assert isinstance(driver, db_deadline.Connection)
        assert isinstance(driver.still_answers, partial)
        _arguments, options = driver.still_answers.args
        assert (parts.hostname, parts.port) == (options["host"], options["port"])
        assert driver.still_answers()
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("postgresql://u@one,two/x", [("one", "5432"), ("two", "5432")]),
        ("postgresql://u@one:6000,two/x", [("one", "6000"), ("two", "5432")]),
        ("postgresql://u@one:6000,two:6001/x", [("one", "6000"), ("two", "6001")]),
        ("postgresql://u@one/x", [("one", "5432")]),
    ],
)
def test_each_host_of_a_url_has_a_port(url: str, found: list[tuple[str, str]]) -> None:
    engine = make_engine(database_url(url))
    _arguments, options = engine.dialect.create_connect_args(engine.url)

    assert found == db_timelines.hosts(options)
    assert db_timelines.hosts(db_timelines.to_hosts(found)) == found


def test_a_connection_that_died_while_it_was_idle_is_replaced(database, single, monkeypatch) -> None:
    first = backend(single)
    end_connections(database)
    monkeypatch.setattr(db, "IDLE", 0.0)

    assert first != backend(single)


def test_a_connection_is_asked_whether_it_is_there_only_when_it_was_idle(single, monkeypatch) -> None:
    asked = []
    ask = single.dialect.do_ping
    monkeypatch.setattr(single.dialect, "do_ping", lambda connection: asked.append(time.monotonic()) or ask(connection))
    monkeypatch.setattr(db, "IDLE", 60.0)
    assert 1 == len({backend(single) for _ in range(3)})
    assert [] == asked

    monkeypatch.setattr(db, "IDLE", 0.0)
    backend(single)
    assert 1 == len(asked)


def test_a_statement_that_is_alone_is_a_transaction_by_itself(single) -> None:
    with alone(single) as conn:
        assert (True, "on") == tuple(
            conn.exec_driver_sql("SELECT now() = statement_timestamp(), set_config('synchronous_commit', 'on', true)").one()
        )
        conn.exec_driver_sql("SELECT pg_sleep(0.001)")
        assert conn.exec_driver_sql("SELECT now() = statement_timestamp()").scalar_one()
    with transaction(single) as conn:
        conn.exec_driver_sql("SELECT pg_sleep(0.001)")
        assert not conn.exec_driver_sql("SELECT now() = statement_timestamp()").scalar_one()


def test_a_transaction_in_which_a_process_stands_still_loses_its_locks_and_is_tried_again(database) -> None:
    database.add_tenant()
    engine = make_engine(database.url, pool_size=1)
    tries = []

    def stand_still(conn) -> None:
        conn.exec_driver_sql("SELECT FROM tenant FOR UPDATE")
        tries.append(conn.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar_one())
        if len(tries) == 1:
            conn.exec_driver_sql("SET idle_in_transaction_session_timeout = '100ms'")
            with psycopg.connect(database.url, options="-c lock_timeout=20s") as other:
                other.execute("SELECT FROM tenant FOR UPDATE")
            conn.exec_driver_sql("SELECT 1")

    persist(engine, 10.0, stand_still)
    engine.dispose()
    assert ["10s", "10s"] == tries


def test_a_connection_whose_plans_are_discarded_is_not_pinged_besides(database, monkeypatch) -> None:
    monkeypatch.setattr(db, "IDLE", 0.0)
    monkeypatch.setattr(db, "PLANS_KEPT", 0.0)
    trips: list[str] = []
    engine = make_engine(database.worker_url, pool_size=1, connections=counting(trips), keep_plans=True)
    for _ in range(2):
        trips.clear()
        with alone(engine) as conn:
            fetched(conn, text("SELECT 1"), {})
    engine.dispose()

    assert 2 == len(trips)


def test_a_process_that_stands_still_after_statements_in_one_round_trip_loses_its_locks_too(database) -> None:
    database.add_tenant()
    engine = make_engine(database.url, pool_size=1)
    with pytest.raises((psycopg.Error, DBAPIError)) as lost, transaction(engine) as conn:
        limit = text("SELECT set_config('idle_in_transaction_session_timeout', '100ms', true)")
        together(conn, [(limit, {}), (text("SELECT FROM tenant FOR UPDATE"), {})])
        with psycopg.connect(database.url, options="-c lock_timeout=20s") as other:
            other.execute("SELECT FROM tenant FOR UPDATE")
        together(conn, [(text("SELECT 1"), {})])
    engine.dispose()
    assert passes(lost.value)


def test_a_connection_that_ends_in_a_statement_for_the_driver_is_replaced_at_once(single, monkeypatch) -> None:
    monkeypatch.setattr(db, "IDLE", 60.0)  # no ping replaces it
    with pytest.raises(psycopg.OperationalError), transaction(single) as conn:
        fetched(conn, text("SELECT pg_terminate_backend(pg_backend_pid())"), {})
    with alone(single) as conn, pytest.raises(psycopg.OperationalError):
        fetched(conn, text("SELECT pg_terminate_backend(pg_backend_pid())"), {})
    with alone(single) as conn:
        assert [(1,)] == fetched(conn, text("SELECT 1 AS one"), {})


@pytest.mark.parametrize("many", [0, 1, 3000])
def test_arrays_in_binary_form_hold_in_postgres_what_they_were_made_of(single, many) -> None:
    keys, hashes = [os.urandom(16) for _ in range(many)], [os.urandom(32) for _ in range(many)]
    numbers = [(-1) ** n * n * (2**63 - 1) // 3000 for n in range(many)]
    asked = text("""
        SELECT ARRAY(SELECT uuid_send(key) FROM unnest(CAST(:keys AS uuid[])) WITH ORDINALITY AS given (key, n) ORDER BY n),
               CAST(:hashes AS bytea[]), CAST(:numbers AS bigint[])""")
    given = {"keys": uuid_array(keys), "hashes": hash_array(hashes), "numbers": bigint_array(numbers)}

    with transaction(single) as conn:
        (found,) = together(conn, [(asked, given)])

    assert [(keys, hashes, numbers)] == found


def test_an_array_of_keys_or_hashes_of_another_length_is_not_made() -> None:
    for make, right in ((uuid_array, 16), (hash_array, 32)):
        for wrong in ([b""], [bytes(right - 1), bytes(right + 1)]):
            with pytest.raises(ValueError, match=f"{right} bytes"):
                make(wrong)


@pytest.mark.timeout(60)
def test_a_packet_that_is_larger_than_the_sockets_buffer_is_sent_whole(single) -> None:
    size = 16 * 1024 * 1024
    with transaction(single) as conn:
        rows = together(conn, [(text("SELECT octet_length(CAST(:body AS bytea))"), {"body": bytes(size)})])

    assert [[(size,)]] == rows
