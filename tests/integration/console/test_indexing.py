"""The search index: complete, each event once, whoever dies, races or erases; and what it costs nobody else."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Engine

from ops.admin.bulk import Pace
from ops.admin.erasure.erase_subject import Wanted, carry_out, plan
from ops.admin.search.events import Search, events, locate
from ops.admin.search.indexing import Indexer, Turn
from ops.runtime.db import make_engine, transaction
from ops.settings import Settings
from pipeline.ledger.erase import Order
from pipeline.store.log import incarnations
from pipeline.store.search import indexing
from support.deliveries import event, record
from support.emptying import database
from support.waiting import wait_for
from workers.console.indexer import Indexing
from workers.sequencer.worker import Sequencer

__all__ = ["database"]

ORDER = Order("dpo@acme.example", "request 17")


@pytest.fixture(scope="module")
def console(shared_database) -> Iterator[Engine]:
    engine = make_engine(shared_database.console_url, pool_size=3)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def sealer(shared_database) -> Iterator[Engine]:
    engine = make_engine(shared_database.sealer_url, pool_size=1)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def eraser(shared_database) -> Iterator[Engine]:
    engine = make_engine(shared_database.eraser_url, pool_size=2)
    yield engine
    engine.dispose()


@pytest.fixture
def fill(database, shared_engine, sealer) -> Callable[..., None]:
    """Records events of subjects and gives them their positions."""
    database.add_tenant()
    database.add_endpoint("billing", "http://127.0.0.1/")

    def run(*subjects: str, first: int = 0) -> None:
        record(shared_engine, [event(f"e-{first + n}", subject) for n, subject in enumerate(subjects)])
        sequencer = Sequencer(sealer)
        while sequencer.turn() == 0.0:
            pass

    return run


def copied(database: Any) -> tuple[list[str], list[str], list[int]]:
    """The ids, the subjects and the deliveries in the index."""
    ids = database.rows("SELECT event_id FROM event_search ORDER BY 1")
    subjects = database.rows("SELECT subject FROM subject_search ORDER BY 1")
    return *([text for (text,) in found] for found in (ids, subjects)), [
        id_ for (id_,) in database.rows("SELECT id FROM delivery_search ORDER BY 1")
    ]


def to_the_end(indexer: Indexer) -> list[Turn]:
    """All turns until a turn of two finds nothing."""
    turns: list[Turn] = []
    while len(turns) < 2 or turns[-1].more or turns[-1].events or turns[-1].deliveries or turns[-2].deliveries:
        turn = indexer.turn()
        assert turn is not None
        turns.append(turn)
    return turns


def erase(eraser: Engine, database: Any, subject: str, **wanted: Any) -> None:
    settings = Settings(database_url=database.eraser_url, keys=database.key)
    planned = plan(eraser, settings, Wanted("acme", subject, **wanted))
    carry_out(eraser, planned, ORDER, Pace(1e6), lambda _done: None)


def test_everything_is_copied_once_in_small_steps_and_then_what_is_new(database, fill, console) -> None:
    fill("a", "b", "a", "c", "a")
    turns = to_the_end(Indexer(console, entries=2))

    assert (5, 5) == (sum(turn.events for turn in turns), sum(turn.deliveries for turn in turns))
    assert (["e-0", "e-1", "e-2", "e-3", "e-4"], ["a", "b", "c"], [1, 2, 3, 4, 5]) == copied(database)
    fill("d", "a", first=5)
    assert 2 == sum(turn.events for turn in to_the_end(Indexer(console)))
    assert (7, 4, 7) == tuple(map(len, copied(database)))
    assert [(7,)] == database.rows("SELECT CAST(sum(n) AS int) FROM accepted_minute")


def test_a_step_that_is_cut_off_has_copied_nothing_and_is_repeated(database, fill, console, monkeypatch) -> None:
    fill("a", "b", "a")

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(indexing, "lag", dies)
        with pytest.raises(KeyboardInterrupt):
            Indexer(console, entries=2).turn(0.0)
    real = indexing.copy_events
    monkeypatch.setattr(indexing, "copy_events", lambda *given: (real(*given), dies()))
    with pytest.raises(KeyboardInterrupt):
        Indexer(console, entries=2).turn()
    assert ([], []) == copied(database)[:2]
    monkeypatch.undo()
    to_the_end(Indexer(console, entries=2))

    assert (["e-0", "e-1", "e-2"], ["a", "b"], [1, 2, 3]) == copied(database)
    assert [(3,)] == database.rows("SELECT CAST(sum(n) AS int) FROM accepted_minute")


def test_of_two_only_one_copies_at_a_time(database, fill, console) -> None:
    fill("a", "b")
    with transaction(console) as conn:
        assert indexing.lead(conn)
        assert Indexer(console).turn() is None
    assert ([], [], []) == copied(database)


def test_a_delivery_that_is_committed_late_is_copied_all_the_same(database, fill, console, shared_engine) -> None:
    fill("a")
    with shared_engine.connect() as late:
        place = "SELECT 7, 'acme', gen_random_uuid(), 0, 1, 'paused', now()"
        columns = "endpoint_id, tenant, chain_id, seq, size, state, created_at"
        late.exec_driver_sql(f"INSERT INTO delivery ({columns}) {place}")  # has drawn number 2
        fill("b", first=1)
        indexer = Indexer(console)
        for _ in range(4):
            indexer.turn()
        assert 2 == len(copied(database)[0])
        assert 2 not in copied(database)[2]
        late.commit()
    to_the_end(indexer)

    assert [1, 2, 3] == copied(database)[2]


def test_what_is_erased_is_in_the_index_no_more_and_does_not_come_back(database, fill, console, eraser) -> None:
    fill("gone", "kept", "gone", "part", "part")
    to_the_end(Indexer(console))
    erase(eraser, database, "gone", name=True)
    erase(eraser, database, "part", only=[0])

    assert (["e-1", "e-4"], ["kept", "part"]) == copied(database)[:2]
    database.run("DELETE FROM search_progress")  # as if the index were made anew
    to_the_end(Indexer(console))
    assert (["e-1", "e-4"], ["kept", "part"]) == copied(database)[:2]
    assert {"e-1", "e-4"} == {row["id"] for row in events(console, Search("acme"), None, 50).rows}
    assert [] == locate(console, "acme", "e-0")


def test_an_erasure_and_a_step_that_meet_leave_no_copy(database, fill, console, eraser, monkeypatch) -> None:
    """The step has read the content before the erasure; it writes its copies before the erasure can commit."""
    fill("gone", "gone", "kept")
    erasing = threading.Thread(target=erase, args=(eraser, database, "gone"), kwargs={"name": True})
    real = indexing.copy_events

    def meets(*given: Any) -> Any:
        found = real(*given)
        erasing.start()
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_for(lambda: database.rows(waits) == [(1,)])
        return found

    monkeypatch.setattr(indexing, "copy_events", meets)
    Indexer(console).turn()
    erasing.join(30)

    assert (["e-2"], ["kept"]) == copied(database)[:2]


def test_a_step_waits_for_an_erasure_and_copies_what_is_left(database, fill, console, shared_database) -> None:
    fill("gone", "kept")
    with psycopg.connect(shared_database.url) as owner:
        owner.execute("DELETE FROM content WHERE subject = 'gone'")
        Indexing(console).turn()  # waits two seconds, and gives up for this time
        assert ([], 2.0) == (copied(database)[0], REGISTRY.get_sample_value("waxseal_search_unindexed_entries"))
        owner.commit()
    to_the_end(Indexer(console))

    assert ["e-1"] == copied(database)[0]


def test_a_new_incarnation_of_a_log_is_copied_and_the_former_dropped(database, fill, console, sealer) -> None:
    fill("a", "b", "a")
    to_the_end(Indexer(console))
    ((other,),) = database.rows("SELECT gen_random_uuid()")
    owner = make_engine(database.url)
    with transaction(owner) as conn:
        incarnations.open_next(conn, "acme", 2)
        incarnations.note_all(conn, "acme", other)
    owner.dispose()
    while Sequencer(sealer).turn() == 0.0:
        pass
    to_the_end(Indexer(console))

    assert (["e-0", "e-1", "e-2"], ["a", "b"]) == copied(database)[:2]
    assert [(2, 3)] == database.rows("SELECT log_id, position FROM search_progress")
    assert [(2, 3)] == database.rows("SELECT log_id, CAST(sum(n) AS int) FROM accepted_minute GROUP BY 1")


def test_figures_by_the_minute_are_kept_for_eight_days_only(database, fill, console) -> None:
    fill("a")
    with transaction(console) as conn:
        assert indexing.lead(conn)
        indexing.copy_events(conn, 1, 10, datetime.now(UTC) + timedelta(minutes=1))

    assert ["e-0"] == copied(database)[0]
    assert [] == database.rows("SELECT * FROM accepted_minute")
