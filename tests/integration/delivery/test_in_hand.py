"""Deliveries that a deliver process holds: for how long their leases last, and which it does not send."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from ops.runtime.db import transaction
from pipeline.store.deliveries import claims
from support.deliveries import claimed, event, in_message, record
from support.waiting import wait_for

LEASE = 3.0  # seconds

Hand = Callable[[], None]


@pytest.fixture
def lease() -> float:
    return LEASE


@pytest.fixture
def hand(engine, delivery_loop) -> Hand:
    """Claims everything due and hands it over."""

    def hand() -> None:
        lease, found = claimed(engine, 1000, None, timedelta(seconds=LEASE))
        delivery_loop.deliver(lease.hex, time.time() + LEASE, in_message(found))

    return hand


def test_a_lease_outlives_an_endpoint_that_is_slower_than_it(database, engine, sink, hand, lateness) -> None:
    database.add_tenant()
    database.add_endpoint("slow", sink.url("/hang"), timeout=60)
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(3)])

    hand()
    twice = datetime.now(UTC) + timedelta(seconds=2 * LEASE)

    def extended() -> bool:
        with transaction(engine) as conn:
            assert [] == claims.expire_leases(conn, datetime.now(UTC) - timedelta(seconds=lateness()), 100)
        return database.rows("SELECT bool_and(lease_until >= %s) FROM delivery", twice) == [(True,)]

    wait_for(extended)
    sink.release()

    wait_for(lambda: [("delivered", 3)] == database.rows("SELECT state, count(*) FROM delivery GROUP BY 1"))
    assert 3 == len(sink.requests)


def test_what_somebody_else_has_by_now_is_let_go(database, engine, sink, delivery_loop, hand) -> None:
    database.add_tenant()
    database.add_endpoint("slow", sink.url("/hang"), timeout=20)
    record(engine, [event("e-1")])
    hand()
    wait_for(lambda: sink.requests)
    assert delivery_loop.busy

    with database.connect() as owner:
        owner.execute("UPDATE delivery SET lease = gen_random_uuid(), lease_until = now() + interval '1 hour'")

    wait_for(lambda: not delivery_loop.busy, 15)  # the endpoint hangs for 20 s
    assert [("leased", 0)] == database.rows("SELECT state, attempts FROM delivery")


def test_what_is_too_old_is_buried_unsent(database, engine, sink, hand) -> None:
    database.add_tenant()
    database.add_endpoint("young", sink.url("/200"), max_age=60)
    record(engine, [event("old")], now=datetime.now(UTC) - timedelta(seconds=61))
    record(engine, [event("young", "other")], now=datetime.now(UTC) - timedelta(seconds=30))

    hand()

    wait_for(lambda: {"young": 1} == sink.ids())
    wait_for(lambda: 2 == len(database.rows("SELECT 1 FROM delivery WHERE settled_at IS NOT NULL")))
    assert [("dead", 0, "expired"), ("delivered", 1, None)] == database.rows(
        "SELECT state, attempts, error FROM delivery ORDER BY state"
    )
    assert [("deliver", "expired", "too old before it could be tried", "old", 0)] == database.rows(
        "SELECT stage, reason, detail, event_id, attempts FROM dead_letter"
    )


def test_nobody_waits_for_the_batches_of_an_endpoint_that_hangs(database, engine, sink, hand, monkeypatch) -> None:
    database.add_tenant()
    database.add_endpoint("slow", sink.url("/hang"), timeout=20)
    monkeypatch.setattr("workers.delivery.worker.PATIENCE", 2.0)  # longer than everything else takes, even on a busy machine
    took = []
    for n in range(3):
        record(engine, [event(f"e-{n}", f"s-{n}")])
        began = time.monotonic()
        hand()
        took.append(time.monotonic() - began)
    sink.release()

    assert took[0] >= 2.0
    assert max(took[1:]) < 2.0
