"""Settlements: what is written after a try, and which process may write it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from ops.runtime.db import make_engine, transaction
from pipeline.deliver import judge
from pipeline.settle import settle
from pipeline.store.config.catalog import version
from pipeline.store.deliveries import claims, deliveries
from schemas.delivery import Delivery, Receipt, Tried
from schemas.endpoint import Endpoint
from support.deliveries import LEASE, claimed, event, record
from support.net.round_trips import counting
from workers.delivery.not_sent import GivenUp, Untried
from workers.delivery.store import DeliveryStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AFTER = NOW + timedelta(seconds=2)
ENDPOINT = Endpoint(1, "acme", "billing", "http://127.0.0.1/", retry=(5.0,))

OK = {"status": 200, "response": b"thanks"}
FAILED = {"status": 500, "error": "status", "detail": "answered 500"}
GONE = {"status": 410, "error": "status", "detail": "answered 410"}


def held(engine: Engine, count: int = 1) -> list[Delivery]:
    """Claims deliveries, and loads them under their lease."""
    lease, claims = claimed(engine, count, NOW)
    with transaction(engine) as conn:
        loaded = deliveries.load_leased(conn, [(claim.id, lease) for claim in claims])
    return sorted(loaded.deliveries, key=lambda each: each.id)


def tried(delivery: Delivery, **receipt: object) -> Tried:
    return Tried(delivery, judge(delivery, ENDPOINT, Receipt(NOW, 0.25, **receipt), AFTER, 0.0))  # type: ignore[arg-type]


def settled(engine: Engine, each: Sequence[Tried], now: datetime = AFTER) -> list[Tried]:
    with transaction(engine) as conn:
        return list(settle(conn, each, now).tried)


@pytest.fixture
def four(database, engine) -> list[Delivery]:
    database.add_tenant()
    database.add_endpoint("billing", "http://127.0.0.1/")
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(4)], now=NOW)
    return held(engine, 4)


def test_a_delivered_one_is_finished_with_its_attempt(database, engine, four) -> None:
    assert 1 == len(settled(engine, [tried(four[0], **OK)]))

    assert [("delivered", 1, None, AFTER, None, None, None)] == database.rows(
        "SELECT state, attempts, next_attempt_at, settled_at, lease, lease_until, error FROM delivery WHERE id = %s", four[0].id
    )
    assert [(four[0].id, 1, NOW, 0.25, "delivered", 200, None, None, b"thanks")] == database.rows(
        "SELECT delivery_id, n, started_at, seconds, outcome, status, error, detail, response FROM attempt"
    )


def test_an_attempt_keeps_all_that_is_known_of_it(database, engine, four) -> None:
    whole = {"address": "127.0.0.1:80", "reused": False, "dns": 0.5, "connect": 0.25, "tls": 0.125, "first_byte": 2.0}
    settled(engine, [tried(four[0], **OK, **whole), tried(four[1], **OK, reused=True), tried(four[2], **FAILED)])

    assert [
        (200, b"thanks", "127.0.0.1:80", False, 0.5, 0.25, 0.125, 2.0),
        (200, b"thanks", None, True, None, None, None, None),
        (500, None, None, None, None, None, None, None),
    ] == database.rows(
        "SELECT status, response, address, reused, dns, connect, tls, first_byte FROM attempt ORDER BY delivery_id"
    )


def test_a_failed_one_is_due_again_with_its_error(database, engine, four) -> None:
    settled(engine, [tried(four[0], **FAILED)])

    assert [("pending", 1, AFTER + timedelta(seconds=5), None, None, "status: answered 500")] == database.rows(
        "SELECT state, attempts, next_attempt_at, settled_at, lease, error FROM delivery WHERE id = %s", four[0].id
    )
    assert [(1, "retry", 500, "status", "answered 500", None)] == database.rows(
        "SELECT n, outcome, status, error, detail, response FROM attempt"
    )


def test_the_last_failure_makes_a_dead_letter_that_says_why_without_the_content(database, engine, four) -> None:
    settled(engine, [tried(four[0], **FAILED)])
    lease, _ = claimed(engine, 1, AFTER + timedelta(seconds=5))
    with transaction(engine) as conn:
        again = deliveries.load_leased(conn, [(four[0].id, lease)]).deliveries
    settled(engine, [tried(again[0], **FAILED)])

    assert [("dead", 2, AFTER)] == database.rows("SELECT state, attempts, settled_at FROM delivery WHERE id = %s", four[0].id)
    assert [("deliver", "exhausted", "status: answered 500", "acme", "orders", 1, four[0].id, "e-0", None, 2)] == database.rows(
        "SELECT stage, reason, detail, tenant, source, endpoint_id, delivery_id, event_id, body, attempts FROM dead_letter"
    )
    assert [(1, "retry"), (2, "dead")] == database.rows("SELECT n, outcome FROM attempt ORDER BY n")


def test_410_buries_the_delivery_and_disables_the_endpoint_once(database, engine, four) -> None:
    with transaction(engine) as conn:
        before = version(conn)
    settled(engine, [tried(four[0], **GONE), tried(four[1], **GONE)])
    settled(engine, [tried(four[2], **GONE)])

    assert [("disabled", "it answered 410 Gone at 2026-01-01 00:00:02Z")] == database.rows("SELECT state, reason FROM endpoint")
    assert [("gone", 3)] == database.rows("SELECT reason, count(*) FROM dead_letter GROUP BY 1")
    with transaction(engine) as conn:
        assert before + 1 == version(conn)


def test_many_are_settled_in_one_go_each_in_its_own_way(database, engine, four) -> None:
    settled(engine, [tried(four[0], **OK), tried(four[1], **FAILED), tried(four[2], error="connect"), tried(four[3], **OK)])

    assert ["delivered", "pending", "pending", "delivered"] == [
        state for (state,) in database.rows("SELECT state FROM delivery ORDER BY id")
    ]
    assert [(each.id,) for each in four] == database.rows("SELECT delivery_id FROM attempt ORDER BY delivery_id")


@pytest.mark.parametrize("receipt", [OK, FAILED, GONE], ids=["delivered", "failed", "gone"])
def test_a_process_that_lost_the_lease_settles_nothing(database, engine, four, receipt) -> None:
    with transaction(engine) as conn:
        claims.expire_leases(conn, NOW + LEASE, 10)
    before = database.rows("SELECT * FROM delivery ORDER BY id")

    assert [] == settled(engine, [tried(each, **receipt) for each in four])

    assert before == database.rows("SELECT * FROM delivery ORDER BY id")
    assert [(0, 0, "active")] == database.rows(
        "SELECT (SELECT count(*) FROM attempt), (SELECT count(*) FROM dead_letter), state FROM endpoint"
    )


def test_settling_the_same_try_twice_counts_it_once(database, engine, four) -> None:
    once = [tried(four[0], **FAILED)]

    assert (1, 0) == (len(settled(engine, once)), len(settled(engine, once)))
    assert [(1,)] == database.rows("SELECT count(*) FROM attempt")


def test_a_rolled_back_settlement_leaves_the_lease(database, engine, four) -> None:
    with engine.connect() as conn:
        settle(conn, [tried(four[0], **OK)], AFTER)
        conn.rollback()

    assert [("leased", 0)] == database.rows("SELECT state, attempts FROM delivery WHERE id = %s", four[0].id)
    assert [(0,)] == database.rows("SELECT count(*) FROM attempt")


@pytest.mark.parametrize(
    ("ordered", "receipt", "most"),
    [(False, OK, 2), (True, OK, 3), (False, FAILED, 3)],
    ids=["delivered", "delivered in order", "failed"],
)
def test_a_settlement_takes_few_round_trips_however_many_there_are(database, ordered, receipt, most) -> None:
    trips: list[str] = []
    engine = make_engine(database.worker_url, pool_size=1, connections=counting(trips))
    database.add_tenant()
    database.add_endpoint("billing", "http://127.0.0.1/")
    record(engine, [event(f"e-{n}", f"s-{n % 20}") for n in range(40)], now=NOW, ordered=ordered)
    deliveries = held(engine, 40)
    trips.clear()

    assert len(deliveries) == len(settled(engine, [tried(each, **receipt) for each in deliveries]))

    engine.dispose()
    assert most == len(trips)  # with COMMIT


def test_whatever_an_endpoint_answers_can_be_stored(database, engine, four) -> None:
    settled(engine, [tried(four[0], status=500, error="status", detail="\x00\udcff", response=b"\x00\xff")])

    assert [("�?", b"\x00\xff")] == database.rows("SELECT detail, response FROM attempt")
    assert [("status: �?",)] == database.rows("SELECT error FROM delivery WHERE id = %s", four[0].id)


def test_the_store_write_what_was_tried_and_what_was_not_in_one_go(database, engine, four) -> None:
    tags = [(each.id, each.lease) for each in four]
    with database.connect() as owner:
        owner.execute("UPDATE endpoint SET state = 'disabled', reason = 'why'")

    DeliveryStore(engine, 90.0).settle(
        [
            tried(four[0], **OK),
            Untried(tags[1], "pending"),
            Untried(tags[2], "aside"),
            GivenUp(tags[3], "the content was erased", "http"),
        ]
    )

    assert [
        ("delivered", 1, None),
        ("pending", 0, None),
        ("paused", 0, None),
        ("discarded", 0, "the content was erased"),
    ] == database.rows("SELECT state, attempts, error FROM delivery ORDER BY id")
    assert [(1,)] == database.rows("SELECT count(*) FROM attempt")


def test_the_store_find_what_is_missing(database, engine, four) -> None:
    with database.connect() as owner:
        owner.execute("DELETE FROM content WHERE chain_id = %s", (four[1].chain_id,))
    tags = [(four[0].id, four[0].lease), (four[1].id, four[1].lease), (four[2].id, uuid4())]

    found = DeliveryStore(engine, 90.0).load(tags)

    assert [four[0].id, "CONTENT", "LEASE"] == [getattr(each, "id", None) or each.name for each in found]


def test_one_settlement_that_postgres_refuses_does_not_keep_back_the_others(database, engine, four) -> None:
    database.run(f"ALTER TABLE attempt ADD CONSTRAINT no CHECK (delivery_id <> {four[2].id})")

    DeliveryStore(engine, 90.0).settle([tried(each, **OK) for each in four])
    database.run("ALTER TABLE attempt DROP CONSTRAINT no")

    assert ["delivered", "delivered", "leased", "delivered"] == [
        state for (state,) in database.rows("SELECT state FROM delivery ORDER BY id")
    ]


@pytest.mark.parametrize(
    ("state", "becomes", "noted"),
    [
        ("active", ("pending", None, True), []),
        ("disabled", ("paused", None, None), []),
        ("removed", ("discarded", "the endpoint was removed", None), [("endpoint remove", "billing", 1)]),
    ],
)
def test_what_becomes_of_a_delivery_that_is_not_sent_is_for_the_row_of_its_endpoint_to_say(
    database, engine, four, state, becomes, noted
) -> None:
    with database.connect() as owner:
        owner.execute("UPDATE endpoint SET state = %s, reason = %s", (state, "why" if state == "disabled" else None))

    DeliveryStore(engine, 90.0).settle(
        [Untried((four[0].id, four[0].lease), "aside", 5.0), Untried((four[1].id, uuid4()), "aside", 5.0)]
    )

    assert [becomes, ("leased", None, None)] == database.rows(
        "SELECT state, error, next_attempt_at > now() + interval '3 seconds' FROM delivery ORDER BY id LIMIT 2"
    )
    assert noted == database.rows("SELECT act, filter ->> 'endpoint', count FROM audit")


def test_setting_a_delivery_aside_does_not_wait_for_a_lock_on_the_endpoint(database, engine, four) -> None:
    with database.connect() as owner, owner.transaction():
        owner.execute("UPDATE endpoint SET state = 'disabled', reason = 'why'")
        DeliveryStore(engine, 90.0).settle([Untried((four[0].id, four[0].lease), "aside")])

    assert [("pending",)] == database.rows("SELECT state FROM delivery WHERE id = %s", four[0].id)


def test_to_load_and_settle_nothing_does_nothing(engine, four) -> None:
    with transaction(engine) as conn:
        assert deliveries.Loaded([], set()) == deliveries.load_leased(conn, [])
    assert [] == settled(engine, [])
