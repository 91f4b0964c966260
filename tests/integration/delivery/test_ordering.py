"""Ordered endpoints: each subject's events one by one, subjects in parallel, whatever is killed or races."""

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine

from ops.runtime.db import make_engine, transaction
from pipeline.deliver import judge
from pipeline.settle import settle
from pipeline.store.deliveries import deliveries, paused
from schemas.delivery import Delivery, Receipt, Tried
from schemas.endpoint import Endpoint
from support.deliveries import claimed, event, plan, record
from support.sessions import waits_for_lock
from support.waiting import wait_for
from workers.relay.repairs import Repairs

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ORDERED = Endpoint(1, "acme", "e1", "http://127.0.0.1/", ordered=True, retry=(3600.0,))

OK = Receipt(NOW, 0.1, status=200)
FAILED = Receipt(NOW, 0.1, status=500, error="status", detail="answered 500")
GONE = Receipt(NOW, 0.1, status=410, error="status", detail="answered 410")

COUNT = "SELECT state, count(*) FROM delivery GROUP BY 1"


@pytest.fixture(autouse=True)
def _endpoint(database) -> None:
    database.add_tenant()
    database.add_endpoint("e1", "http://127.0.0.1/", ordered=True)


def owe_in_order(engine: Engine, *subjects: str, now: datetime = NOW) -> None:
    """Plans one event of each of these subjects, in order."""
    count = sum(1 for _ in subjects)
    start = time.monotonic_ns()
    record(engine, [event(f"e-{start}-{n}", subjects[n]) for n in range(count)], now=now, ordered=True)


def take(engine: Engine, now: datetime = NOW) -> list[Delivery]:
    """Claims and loads everything that may be sent now."""
    lease, claims = claimed(engine, 1000, now)
    if not claims:
        return []
    with transaction(engine) as conn:
        loaded = deliveries.load_leased(conn, [(claim.id, lease) for claim in claims])
    return sorted(loaded.deliveries, key=lambda each: each.id)


def settled(engine: Engine, each: Delivery, receipt: Receipt = OK, endpoint: Endpoint = ORDERED) -> None:
    with transaction(engine) as conn:
        settle(conn, [Tried(each, judge(each, endpoint, receipt, NOW, 0.0))], NOW)


def places(found: Sequence[Delivery]) -> list[tuple[UUID, int]]:
    return [(each.chain_id, each.seq) for each in found]


def test_only_the_first_of_each_subject_may_be_sent_and_the_others_have_no_planned_time(database, engine) -> None:
    owe_in_order(engine, "a", "a", "b", "a")

    assert [0, 0] == [each.seq for each in take(engine)]
    assert [("leased", 0, True), ("leased", 0, True), ("pending", 1, True), ("pending", 2, True)] == database.rows(
        "SELECT state, seq, next_attempt_at IS NULL FROM delivery ORDER BY seq, id"
    )


@pytest.mark.parametrize("end", [OK, GONE], ids=["delivered", "dead"])
def test_the_next_is_due_at_once_when_the_one_before_came_to_its_end(database, engine, end) -> None:
    owe_in_order(engine, "a", "a", "a")
    [first] = take(engine)
    assert [] == take(engine)

    settled(engine, first, end)
    if end is GONE:  # it has disabled the endpoint
        with database.connect() as owner:
            owner.execute("UPDATE endpoint SET state = 'active', reason = NULL")

    assert [(first.chain_id, 1)] == places(take(engine))


def test_a_retry_keeps_the_turn_and_holds_up_its_own_subject_only(database, engine) -> None:
    owe_in_order(engine, "a", "a", "b", "b")
    failing, well = take(engine)

    settled(engine, failing, FAILED)
    settled(engine, well)

    assert [(well.chain_id, 1)] == places(take(engine))
    assert [(failing.chain_id, 0)] == places(take(engine, NOW + timedelta(hours=2)))


def test_what_is_handed_back_or_whose_lease_ended_keeps_the_turn(database, engine) -> None:
    owe_in_order(engine, "a", "a")
    for _ in range(2):
        [first] = take(engine)
        with transaction(engine) as conn:
            deliveries.release(conn, [(first.id, first.lease)], NOW)
    take(engine)
    Repairs(engine).turn()  # the lease ended long ago

    assert [0] == [each.seq for each in take(engine, datetime.now(UTC))]


def test_what_was_erased_or_became_too_old_passes_the_turn_on(database, engine) -> None:
    owe_in_order(engine, "a", "a", "a")
    for expected in range(2):
        [each] = take(engine)
        assert expected == each.seq
        with transaction(engine) as conn:
            assert {each.id} == deliveries.end(conn, [(each.id, each.lease)], "discarded", NOW, "the content was erased")

    assert [2] == [each.seq for each in take(engine)]


def test_an_idle_subject_starts_again_at_once(database, engine) -> None:
    for expected in range(3):
        owe_in_order(engine, "a")
        [each] = take(engine)
        assert expected == each.seq
        settled(engine, each)


def test_what_an_endpoint_missed_is_sent_in_order_before_what_came_after_it(database, engine) -> None:
    record(engine, [event(f"missed-{n}", "a") for n in range(3)], now=NOW, ordered=True, state="disabled")
    owe_in_order(engine, "a")
    assert [] == take(engine), "its predecessors are paused"

    with transaction(engine) as conn:
        assert 3 == paused.release(conn, 1, NOW)

    seen = []
    while found := take(engine):
        seen += [each.seq for each in found]
        settled(engine, found[0])
    assert [0, 1, 2, 3] == seen


def test_discarding_what_was_missed_lets_the_next_have_its_turn(database, engine) -> None:
    record(engine, [event(f"missed-{n}", "a") for n in range(3)], now=NOW, ordered=True, state="disabled")
    owe_in_order(engine, "a")

    with transaction(engine) as conn:
        assert (2, 1, 0) == tuple(paused.discard(conn, 1, NOW, 2) for _ in range(3))

    assert [3] == [each.seq for each in take(engine)]


def test_postgres_refuses_a_second_of_a_subject_in_turn(database, engine) -> None:
    owe_in_order(engine, "a", "a")

    with database.connect() as owner, pytest.raises(psycopg.errors.UniqueViolation):
        owner.execute("UPDATE delivery SET next_attempt_at = now()")


def test_only_a_delivery_in_order_costs_an_entry_in_an_index_by_chain(database, engine) -> None:
    size = "SELECT sum(pg_relation_size(indexrelid)) FROM pg_index WHERE indexrelid::regclass::text IN ("
    size += "'delivery_in_order', 'delivery_waiting', 'delivery_in_turn')"
    ((before,),) = database.rows(size)

    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(1000)], now=NOW)
    assert [(before,)] == database.rows(size)

    record(engine, [event(f"o-{n}", f"s-{n}") for n in range(1000)], now=NOW, ordered=True)
    assert before < database.rows(size)[0][0]


def test_a_turn_that_was_never_passed_on_is_found_by_the_repairs(database, engine) -> None:
    owe_in_order(engine, "a", "a", "b", "b", "c", "c")
    with database.connect() as owner:  # no process of Waxseal does this
        owner.execute("UPDATE delivery SET state = 'delivered', next_attempt_at = NULL, settled_at = now() WHERE id IN (1, 5)")

    Repairs(engine).turn()

    assert [(1, False), (2, True), (3, True), (4, False), (5, False), (6, True)] == database.rows(
        "SELECT id, next_attempt_at IS NOT NULL FROM delivery ORDER BY id"
    )


def test_passing_the_turn_on_waits_for_a_transaction_that_plans_the_next(database, engine) -> None:
    """Otherwise neither would give it to the next: it was planned behind one that had not ended."""
    owe_in_order(engine, "a")
    [first] = take(engine)
    settling = threading.Thread(target=settled, args=(engine, first))
    with transaction(engine) as conn:
        plan(conn, [event("next", "a")], now=NOW, ordered=True)
        settling.start()
        wait_for(lambda: waits_for_lock(database))
    settling.join(60)

    assert [1] == [each.seq for each in take(engine)]


def test_appending_and_settling_race_for_every_turn_and_none_is_lost_or_swapped(database) -> None:
    subjects, each_of = 3, 70
    seen: defaultdict[UUID, list[int]] = defaultdict(list)
    in_hand: set[UUID] = set()
    faults: list[Delivery] = []
    lock, done = threading.Lock(), threading.Event()

    def append(subject: int) -> None:
        own = make_engine(database.worker_url, pool_size=1)
        for n in range(each_of):
            record(own, [event(f"e-{subject}-{n}", f"s-{subject}")], ordered=True)
        own.dispose()

    def deliver() -> None:
        own = make_engine(database.worker_url, pool_size=1)
        while not done.is_set():
            found = take(own, datetime.now(UTC))
            if not found:
                done.wait(0.002)  # what is appended meanwhile finds its subject idle
            with lock:
                faults.extend(one for one in found if one.chain_id in in_hand)
                in_hand.update(one.chain_id for one in found)
                for one in found:
                    seen[one.chain_id].append(one.seq)
            for one in found:
                with lock:
                    in_hand.discard(one.chain_id)
                settled(own, one)
        own.dispose()

    appenders = [threading.Thread(target=append, args=(n,)) for n in range(subjects)]
    deliverers = [threading.Thread(target=deliver) for _ in range(3)]
    for thread in (*appenders, *deliverers):
        thread.start()
    try:
        wait_for(
            lambda: [(subjects * each_of,)] == database.rows("SELECT count(*) FROM delivery WHERE state = 'delivered'"), 90
        )
    finally:
        done.set()
        for thread in (*appenders, *deliverers):
            thread.join(30)

    assert [list(range(each_of))] * subjects == list(seen.values())
    assert [] == faults


def test_a_deliver_process_that_is_killed_again_and_again_never_swaps_two(database, engine, sink, start) -> None:
    subjects, each_of = 5, 12
    database.run("UPDATE endpoint SET url = %s, settings = %s", sink.url("/rationed"), '{"ordered": true, "timeout": 60}')
    for n in range(each_of):
        record(engine, [event(f"e-{subject}-{n}", f"s-{subject}") for subject in range(subjects)], ordered=True)

    start("relay", lease=2)
    for _ in range(3):
        sink.ration = len(sink.requests) + 8
        deliver = start("deliver", lease=2)
        wait_for(lambda: len(sink.requests) > sink.ration)  # at least one was received and is not answered
        deliver.kill()
        deliver.wait()
    sink.ration = 1000
    start("deliver", lease=2)
    wait_for(lambda: [("delivered", subjects * each_of)] == database.rows(COUNT), 60)

    seen: defaultdict[str, list[int]] = defaultdict(list)
    for request in sink.requests:
        seen[request.headers["ce-subject"]].append(int(request.headers["ce-chainseq"]))
    assert [sorted(numbers) for numbers in seen.values()] == list(seen.values())
    assert [set(range(each_of))] * subjects == [set(numbers) for numbers in seen.values()]
    assert len(sink.requests) >= subjects * each_of + 3, "each kill fell between a POST and its settlement"
