"""Breakers and waits on the route: written when tries are settled, obeyed when deliveries are claimed."""

import random
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from ops.runtime.db import make_engine, transaction
from pipeline.deliver import judge
from pipeline.delivery.breaker import DEFAULT, BreakerPolicy, is_clean
from pipeline.settle import settle
from pipeline.store.deliveries import claims, deliveries, endpoint_health
from pipeline.store.round_trip import together
from schemas.delivery import Receipt, Tried
from schemas.endpoint import Endpoint
from schemas.endpoint_health import Health
from support.deliveries import LEASE, event, one_round, record
from support.waiting import wait_for

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ENDPOINT = Endpoint(1, "acme", "e1", "http://127.0.0.1/", retry=(3600.0,))

OK = Receipt(NOW, 0.1, status=200)
FAILED = Receipt(NOW, 0.1, status=500, error="status", detail="answered 500")
UNAVAILABLE = Receipt(NOW, 0.1, status=503, error="status", detail="answered 503")
BUSY = Receipt(NOW, 0.1, status=429, error="status", detail="answered 429", retry_after=30.0)
OURS = Receipt(NOW, 0.1, error="proxy", detail="the proxy is away")


@pytest.fixture(autouse=True)
def _endpoints(database) -> None:
    database.add_tenant()
    for n in (1, 2, 3):
        database.add_endpoint(f"e{n}", "http://127.0.0.1/")


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def settled(
    engine: Engine, lease: UUID, ids: Sequence[int], receipt: Receipt, now: datetime, policy: BreakerPolicy = DEFAULT
) -> None:
    with transaction(engine) as conn:
        loaded = deliveries.load_leased(conn, [(id, lease) for id in ids]).deliveries
        tried = [Tried(each, judge(each, ENDPOINT, receipt, now, 0.0)) for each in loaded]
        settle(conn, tried, now, policy, 0.0)


def tried(engine: Engine, count: int, receipt: Receipt, now: datetime) -> None:
    """Plans, claims and settles `count` deliveries."""
    record(engine, [event(f"e-{uuid4()}", f"s-{n}") for n in range(count)], now=now)
    lease, found = one_round(engine, now)
    assert count == len(found.claims)
    settled(engine, lease, [each.id for each in found.claims], receipt, now)


def breaker(database, endpoint_id: int = 1) -> tuple:
    [row] = database.rows("SELECT breaker, trips, probe_at FROM endpoint_health WHERE endpoint_id = %s", endpoint_id)
    return row


def test_it_opens_on_enough_failures_lets_one_probe_through_and_closes_when_that_is_delivered(database, engine) -> None:
    tried(engine, 9, FAILED, NOW)
    assert ("closed", 0, None) == breaker(database)
    tried(engine, 1, FAILED, NOW)
    assert ("open", 1, NOW + seconds(10)) == breaker(database)

    record(engine, [event(f"p-{n}", f"p-{n}") for n in range(50)], now=NOW)
    _, held = one_round(engine, NOW + seconds(9.9))
    assert ([], NOW + seconds(10)) == (list(held.claims), held.looked[1].look_at)

    lease, probe = one_round(engine, NOW + seconds(10))
    assert 1 == len(probe.claims)
    assert ("half_open", 1, None) == breaker(database)
    assert 0 == len(one_round(engine, NOW + seconds(50))[1].claims), "one probe at a time"

    settled(engine, lease, [probe.claims[0].id], OK, NOW + seconds(51))
    assert ("closed", 0, None) == breaker(database)
    assert 49 == len(one_round(engine, NOW + seconds(51))[1].claims)
    assert [("breaker_opened", "acme", 1), ("breaker_closed", "acme", 1)] == database.rows(
        "SELECT kind, tenant, endpoint_id FROM operator_event ORDER BY id"
    )


def test_a_failed_probe_doubles_the_wait_and_is_no_event_of_its_own(database, engine) -> None:
    tried(engine, 10, FAILED, NOW)
    record(engine, [event("p", "p")], now=NOW)
    lease, probe = one_round(engine, NOW + seconds(10))

    settled(engine, lease, [probe.claims[0].id], FAILED, NOW + seconds(25))

    assert ("open", 2, NOW + seconds(45)) == breaker(database)
    assert [("breaker_opened",)] == database.rows("SELECT kind FROM operator_event")


def test_a_probe_that_was_lost_is_followed_by_another(database, engine) -> None:
    tried(engine, 10, FAILED, NOW)
    record(engine, [event(f"p-{n}", f"p-{n}") for n in range(5)], now=NOW)
    lost, _ = one_round(engine, NOW + seconds(10))
    with transaction(engine) as conn:
        claims.expire_leases(conn, NOW + seconds(10) + LEASE, 10)

    lease, again = one_round(engine, NOW + seconds(10) + LEASE)

    assert 1 == len(again.claims)
    assert lost != lease


def test_of_many_concurrent_claims_exactly_one_gets_the_probe(database, engine) -> None:
    tried(engine, 10, FAILED, NOW)
    record(engine, [event(f"p-{n}", f"p-{n}") for n in range(50)], now=NOW)
    got: list[int] = []
    ready = threading.Barrier(8)

    def claim_probe() -> None:
        own = make_engine(database.worker_url, pool_size=1)
        with transaction(own) as conn:
            conn.exec_driver_sql("SELECT 1")
        ready.wait(60)
        for _ in range(5):
            got.extend(each.id for each in one_round(own, NOW + seconds(10))[1].claims)
        own.dispose()

    threads = [threading.Thread(target=claim_probe) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert 1 == len(got)
    assert "half_open" == breaker(database)[0]


def test_what_failed_by_our_own_fault_opens_nothing(database, engine) -> None:
    tried(engine, 50, OURS, NOW)

    assert [] == database.rows("SELECT * FROM endpoint_health")


def test_successes_of_a_healthy_endpoint_write_nothing(database, engine) -> None:
    tried(engine, 50, OK, NOW)

    assert [] == database.rows("SELECT * FROM endpoint_health")


def test_a_busy_endpoint_waits_as_a_whole_and_what_was_not_sent_is_not_charged(database, engine) -> None:
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(30)], now=NOW)
    lease, some = one_round(engine, NOW, window=10)
    settled(engine, lease, [each.id for each in some.claims], BUSY, NOW)

    assert 10 == len(some.claims)
    assert [] == list(one_round(engine, NOW + seconds(29.9))[1].claims)
    assert [(0, 20), (1, 10)] == database.rows("SELECT attempts, count(*) FROM delivery GROUP BY 1 ORDER BY 1")
    assert "closed" == breaker(database)[0], "it works, and only wants less"
    assert 20 == len(one_round(engine, NOW + seconds(30))[1].claims)


def test_502_503_and_504_slow_the_endpoint_down_and_count_as_failures(database, engine) -> None:
    tried(engine, 5, UNAVAILABLE, NOW)

    assert [(NOW + seconds(1), 5)] == database.rows("SELECT not_before, failures FROM endpoint_health")


def test_other_endpoints_are_claimed_meanwhile(database, engine) -> None:
    tried(engine, 10, FAILED, NOW)
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(10)], [1, 2, 3], now=NOW)

    assert {2: 10, 3: 10} == {id: found.claimed for id, found in one_round(engine, NOW)[1].looked.items() if found.claimed}


def test_settlements_of_many_endpoints_at_once_do_not_deadlock_and_lose_no_count(database, engine) -> None:
    policy = BreakerPolicy(least=1_000_000)
    for n in range(8):
        record(engine, [event(f"e-{n}-{m}", f"s-{n}-{m}") for m in range(20)], [1, 2, 3], now=NOW)
    lease, found = one_round(engine, NOW, window=1000)
    ids = [each.id for each in found.claims]
    random.Random(7).shuffle(ids)

    def fail(own: Engine, share: list[int]) -> None:
        for start in range(0, len(share), 12):
            settled(own, lease, share[start : start + 12], FAILED, NOW, policy)

    engines = [make_engine(database.worker_url, pool_size=1) for _ in range(6)]
    threads = [threading.Thread(target=fail, args=(own, ids[n::6])) for n, own in enumerate(engines)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for own in engines:
        own.dispose()

    assert [(1, 160, 160), (2, 160, 160), (3, 160, 160)] == database.rows(
        "SELECT endpoint_id, failures, streak FROM endpoint_health ORDER BY 1"
    )
    assert [("pending", 480)] == database.rows("SELECT state, count(*) FROM delivery GROUP BY 1")


def test_a_success_leaves_alone_what_is_clean_and_nothing_else(database, engine) -> None:
    healths = (
        Health(),
        Health(successes=3, not_before=NOW),
        Health(forced=True),
        Health(throttles=1),
        Health(window_from=NOW, failures=1),
        Health(failing_since=NOW, streak=1),
        Health("open", opened_at=NOW, probe_at=NOW),
        Health("half_open", opened_at=NOW),
    )
    for each in healths:
        with transaction(engine) as conn:
            endpoint_health.lock(conn, [1])
            endpoint_health.write(conn, {1: each}, NOW)
            found = endpoint_health.healths(together(conn, endpoint_health.lock_queries((), [1]))[-1])

        assert ({} if is_clean(each) else {1: each}) == found


def test_endpoints_are_counted_by_how_they_fare(database, engine) -> None:
    tried(engine, 10, FAILED, NOW)
    with database.connect() as owner:
        owner.execute("UPDATE endpoint SET state = 'disabled', reason = 'why' WHERE id = 3")
    with transaction(engine) as conn:
        assert {"open": 1, "healthy": 1, "paused": 1} == endpoint_health.destinations(conn, NOW, NOW - seconds(300))
        endpoint_health.lock(conn, [2])
        conn.exec_driver_sql("UPDATE endpoint_health SET not_before = now() + interval '1 hour' WHERE endpoint_id = 2")
        assert {"open": 1, "degraded": 1, "paused": 1} == endpoint_health.destinations(conn, NOW, NOW - seconds(300))


def test_an_endpoint_that_breaks_is_left_alone_at_once_and_delivered_to_when_it_is_well(database, engine, sink, start) -> None:
    with database.connect() as owner:
        owner.execute("UPDATE endpoint SET url = %s WHERE id = 1", (sink.url("/500"),))
        owner.execute("""UPDATE endpoint SET settings = '{"max_in_flight": 5, "retry": [1, 1, 1]}' WHERE id = 1""")
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(200)])
    start("relay")
    start("deliver", breaker_wait=5)

    wait_for(lambda: database.rows("SELECT 1 FROM endpoint_health WHERE breaker = 'open'"))
    wait_for(lambda: [(0,)] == database.rows("SELECT count(*) FROM delivery WHERE state = 'leased'"))
    tries = len(sink.requests)
    assert tries <= 15, "ten failures, and what was sent beside the tenth; what was in hand was handed back, uncharged"
    assert [(200 - tries,)] == database.rows("SELECT count(*) FROM delivery WHERE attempts = 0")

    with database.connect() as owner:
        owner.execute("UPDATE endpoint SET url = %s WHERE id = 1", (sink.url("/200"),))

    wait_for(lambda: [("delivered", 200)] == database.rows("SELECT state, count(*) FROM delivery GROUP BY 1"))
    assert [("breaker_opened",), ("breaker_closed",)] == database.rows("SELECT kind FROM operator_event ORDER BY id")
