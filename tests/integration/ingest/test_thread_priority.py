"""The thread that computes for the database has priority; the other runs while that one waits for Postgres."""

import threading
from types import SimpleNamespace

import pytest
from sqlalchemy import text

from ops.runtime import thread_priority
from ops.runtime.db import make_engine, transaction
from ops.runtime.thread_priority import _LONGEST, ThreadPriority
from support.waiting import wait_for

LOCK = 4711


class Recorded(threading.Event):
    """Remembers of each wait whether the event came; it did not when the wait took all the time that it may take."""

    def __init__(self) -> None:
        super().__init__()
        self.came: list[bool] = []
        self.set()

    def wait(self, timeout: float | None = None) -> bool:
        self.came.append(super().wait(timeout))
        return self.came[-1]


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """The clock by which a thread has waited long for something else than Postgres: it stands unless a test moves it."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(thread_priority, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def priority(clock) -> ThreadPriority:
    priority = ThreadPriority()
    priority._free = Recorded()
    return priority


def held_up(priority: ThreadPriority) -> bool:
    """Whether the thread of lower priority waited as long as it may."""
    assert isinstance(priority._free, Recorded)
    priority._free.came.clear()
    priority.yield_to_first()
    return priority._free.came == [False]


def test_nobody_is_held_up_before_and_after_the_work(priority) -> None:
    assert not held_up(priority)

    priority.done()

    assert not held_up(priority)


def test_the_other_works_while_the_first_waits_for_postgres_and_yields_while_it_computes(database, priority) -> None:
    engine = make_engine(database.url, pool_size=1, connections=priority.connections)
    computing, looked = threading.Event(), threading.Event()

    def first() -> None:
        with transaction(engine) as conn:
            conn.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
            computing.set()
            looked.wait(30)
        priority.done()

    thread = threading.Thread(target=first)
    with database.connect() as owner:
        owner.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        thread.start()
        wait_for(lambda: database.rows("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))
        while_waiting = held_up(priority)
        owner.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))
    assert computing.wait(30)
    while_computing = held_up(priority)
    looked.set()
    thread.join(30)
    engine.dispose()

    assert (False, True) == (while_waiting, while_computing)
    assert not held_up(priority)


def test_a_thread_that_waits_long_for_something_other_than_postgres_delays_no_other(database, priority, clock) -> None:
    """The reader is delayed once per message, for thousands of messages between two heartbeats."""
    engine = make_engine(database.url, pool_size=1, connections=priority.connections)
    with transaction(engine) as conn:
        conn.execute(text("SELECT 1"))

    assert held_up(priority)
    clock.now += 0.9 * _LONGEST
    assert held_up(priority)
    clock.now += 0.2 * _LONGEST
    assert not held_up(priority)
    engine.dispose()
