"""The thread that computes for the database has priority; the other runs while that one waits for Postgres."""

import threading
import time

import pytest
from sqlalchemy import text

from ops.runtime import thread_priority as giving_way
from ops.runtime.db import make_engine, transaction
from ops.runtime.thread_priority import _PATIENCE, GiveWay

PATIENCE = 1.0


@pytest.fixture
def give_way(monkeypatch) -> GiveWay:
    """Its patience is longer than an unblocked call takes, even on a busy machine."""
    monkeypatch.setattr(giving_way, "_PATIENCE", PATIENCE)
    return GiveWay()


def held_up(give_way: GiveWay) -> float:
    began = time.monotonic()
    give_way.let_pass()
    return time.monotonic() - began


def test_nobody_is_held_up_before_and_after_the_work(give_way) -> None:
    assert held_up(give_way) < PATIENCE

    give_way.done()

    assert held_up(give_way) < PATIENCE


def test_the_other_works_while_the_first_waits_for_postgres_and_gives_way_while_it_computes(database, give_way) -> None:
    engine = make_engine(database.url, pool_size=1, connections=give_way.connections)
    asked, computing, looked = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with transaction(engine) as conn:
            asked.set()
            conn.execute(text("SELECT pg_sleep(0.5)"))
            computing.set()
            looked.wait(10)
        give_way.done()

    thread = threading.Thread(target=first)
    thread.start()
    asked.wait(10)
    time.sleep(0.1)
    while_waiting = held_up(give_way)
    computing.wait(10)
    while_computing = held_up(give_way)
    looked.set()
    thread.join(10)
    engine.dispose()

    assert while_waiting < PATIENCE <= while_computing
    assert held_up(give_way) < PATIENCE


def test_who_waits_long_for_something_else_than_postgres_holds_nobody_up(database, give_way, monkeypatch, lateness) -> None:
    """The reader is delayed once per message, for thousands of messages between two heartbeats."""
    monkeypatch.setattr(giving_way, "_PATIENCE", _PATIENCE)
    monkeypatch.setattr(giving_way, "_LONGEST", 0.1, raising=False)
    engine = make_engine(database.url, pool_size=1, connections=give_way.connections)
    with transaction(engine) as conn:
        conn.execute(text("SELECT 1"))

    took = sum(held_up(give_way) for _ in range(100))
    engine.dispose()

    assert 0.05 < took < 0.5 + lateness()
