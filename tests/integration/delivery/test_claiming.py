"""Leases: which process may work on a delivery, and until when."""

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from ops.runtime.db import make_engine, transaction
from pipeline.claim import Lease, claim_anything
from pipeline.store.deliveries import claims, deliveries, inactive_endpoints, notify
from pipeline.store.deliveries.inactive_endpoints import Aside
from support.deliveries import LEASE, claimed, event, record
from support.waiting import wait_for

NOW = datetime(2026, 1, 1, tzinfo=UTC)
E2 = ("acme", "e1", "http")  # tenant, name and transport of the endpoint with the id 2


@pytest.fixture
def endpoints(database) -> None:
    """Three endpoints, without which their deliveries cannot be claimed."""
    database.add_tenant()
    for n in range(3):
        database.add_endpoint(f"e{n}", "http://127.0.0.1/")


pytestmark = pytest.mark.usefixtures("endpoints")


def states(database) -> list[tuple]:
    return database.rows("SELECT state, count(*) FROM delivery GROUP BY state ORDER BY state")


def test_what_is_due_is_claimed_once_and_what_is_not_due_is_left(database, engine) -> None:
    record(engine, [event("due", "a")], now=NOW)
    record(engine, [event("later", "b")], now=NOW + timedelta(seconds=1))

    _, first = claimed(engine, now=NOW)
    _, second = claimed(engine, now=NOW)

    assert [(1, 2)] == [(claim.endpoint_id, claim.size) for claim in first]
    assert [] == second
    assert [(NOW + LEASE,)] == database.rows("SELECT lease_until FROM delivery WHERE state = 'leased'")


def test_what_has_been_due_for_longest_is_claimed_first(database, engine) -> None:
    record(engine, [event("young", "a")], now=NOW)
    record(engine, [event("old", "b")], now=NOW - timedelta(hours=1))

    _, [claim] = claimed(engine, limit=1, now=NOW)

    assert [(claim.id,)] == database.rows("SELECT id FROM delivery ORDER BY next_attempt_at IS NOT NULL, created_at LIMIT 1")
    assert [(NOW,)] == database.rows("SELECT next_attempt_at FROM delivery WHERE state = 'pending'")


def test_paused_and_finished_deliveries_are_never_claimed(database, engine) -> None:
    record(engine, [event("e-1")], [1, 2, 3], now=NOW)
    with database.connect() as owner:
        owner.execute("UPDATE delivery SET state = 'paused', next_attempt_at = NULL WHERE endpoint_id = 1")
        owner.execute("UPDATE delivery SET state = 'dead', next_attempt_at = NULL, settled_at = now() WHERE endpoint_id = 2")

    _, claims = claimed(engine, now=NOW)

    assert [3] == [claim.endpoint_id for claim in claims]


def test_eight_claimants_at_once_never_get_the_same_delivery(database, engine) -> None:
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(400)], now=NOW)
    got: list[int] = []

    def claim_all() -> None:
        own = make_engine(database.worker_url, pool_size=1)
        while claims := claimed(own, limit=7, now=NOW)[1]:
            got.extend(claim.id for claim in claims)
        own.dispose()

    threads = [threading.Thread(target=claim_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert 400 == len(got)
    assert {1} == set(Counter(got).values())
    assert [("leased", 400)] == states(database)


def test_a_claim_does_not_wait_for_another_that_is_not_finished(database, engine) -> None:
    record(engine, [event("e-1", "a"), event("e-2", "b")], now=NOW)
    with transaction(engine) as conn:
        held = claim_anything(conn, Lease(uuid4(), NOW, NOW + LEASE), 1)
        _, others = claimed(engine, now=NOW)

    assert 1 == len(held) == len(others)
    assert held != others


def test_a_lease_that_ended_makes_the_delivery_due_at_once_and_the_old_holder_powerless(database, engine) -> None:
    record(engine, [event("e-1")], now=NOW)
    old, [claim] = claimed(engine, now=NOW)
    later = NOW + LEASE

    with transaction(engine) as conn:
        assert [] == claims.expire_leases(conn, later - timedelta(microseconds=1), 10)
        assert [1] == claims.expire_leases(conn, later, 10)
    new, again = claimed(engine, now=later)

    assert [claim] == again
    with transaction(engine) as conn:
        assert [] == deliveries.load_leased(conn, [(claim.id, old)]).deliveries
        assert 0 == deliveries.release(conn, [(claim.id, old)], later)
        assert [claim.id] == [each.id for each in deliveries.load_leased(conn, [(claim.id, new)]).deliveries]


def test_ended_leases_are_taken_back_a_bounded_number_at_a_time_oldest_first(database, engine) -> None:
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(5)], now=NOW)
    claimed(engine, limit=2, now=NOW)
    claimed(engine, limit=3, now=NOW + timedelta(seconds=1))

    with transaction(engine) as conn:
        assert [1, 1] == claims.expire_leases(conn, NOW + timedelta(days=1), 2)

    assert [(NOW + timedelta(seconds=1) + LEASE, 3)] == database.rows(
        "SELECT lease_until, count(*) FROM delivery WHERE state = 'leased' GROUP BY 1"
    )


def test_a_delivery_that_was_handed_back_is_claimed_again_without_a_counted_try(database, engine) -> None:
    record(engine, [event("e-1")], now=NOW)
    lease, [claim] = claimed(engine, now=NOW)

    with transaction(engine) as conn:
        assert 1 == deliveries.release(conn, [(claim.id, lease)], NOW)
        assert 0 == deliveries.release(conn, [], NOW)

    assert [claim] == claimed(engine, now=NOW)[1]
    assert [(0, None)] == database.rows("SELECT attempts, error FROM delivery")


def test_a_held_delivery_is_loaded_whole(database, engine) -> None:
    record(engine, [event("e-1", body=b"\x00 first"), event("e-2", body=b"second")], now=NOW)
    lease, claims = claimed(engine, now=NOW)

    with transaction(engine) as conn:
        first, second = sorted(
            deliveries.load_leased(conn, [(claim.id, lease) for claim in claims]).deliveries, key=lambda each: each.seq
        )

    assert (b"\x00 first", b"second") == (first.body, second.body)
    assert (None, first.hash) == (first.prev_hash, second.prev_hash)
    assert [(first.hash, first.attributes)] == database.rows(
        "SELECT hash, attributes FROM entry JOIN content USING (chain_id, seq) WHERE seq = 0"
    )
    assert ("acme", 0, 1, event("e-2").fingerprint, NOW, lease) == (
        second.tenant,
        second.attempts,
        second.endpoint_id,
        second.fingerprint,
        second.created_at,
        second.lease,
    )
    assert first.chain_id == second.chain_id


def test_what_was_erased_is_told_apart_from_what_is_not_held(database, engine) -> None:
    record(engine, [event("e-1")], now=NOW)
    lease, [claim] = claimed(engine, now=NOW)
    with database.connect() as owner:
        owner.execute("DELETE FROM content")

    with transaction(engine) as conn:
        loaded = deliveries.load_leased(conn, [(claim.id, lease), (claim.id + 1, lease)])

    assert ([], {claim.id}) == (loaded.deliveries, loaded.erased)


def test_leases_are_counted_up_to_a_bound_and_a_survey_knows_when_each_endpoint_has_something_due(database, engine) -> None:
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(5)], now=NOW)
    record(engine, [event("later", "t")], [1, 2], now=NOW + timedelta(hours=2))
    record(engine, [event("latest", "t")], [2], now=NOW + timedelta(hours=3))
    claimed(engine, now=NOW)

    with transaction(engine) as conn:
        assert (5, 3) == (claims.leased(conn, 100), claims.leased(conn, 3))
        assert dict.fromkeys((1, 2), NOW + timedelta(hours=2)) == claims.survey(conn)
    claimed(engine, now=NOW + timedelta(days=1))
    with transaction(engine) as conn:
        assert {} == claims.survey(conn)


def test_planning_notifies_listeners_of_the_endpoints(database, engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as listener:
        notify.listen(listener)
        assert set() == notify.received(listener, 0)

        record(engine, [event("e-1", "a"), event("e-2", "b")], [1, 3])

        assert {1, 3} == notify.received(listener, 5)
        assert set() == notify.received(listener, 0)
        listener.invalidate()


@pytest.mark.parametrize(
    ("sent", "received"),
    [((), {notify.ANY}), (range(1, 9000), {notify.ANY}), (range(1, 3000), set(range(1, 3000))), ((7, 5), {5, 7})],
)
def test_a_notification_of_too_many_endpoints_is_for_all(database, engine, sent, received) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as listener:
        notify.listen(listener)
        with transaction(engine) as conn:
            notify.send(conn, sent)
        found: set[int] = set()

        def received_all() -> bool:  # the notices of one COMMIT may come in several packets
            found.update(notify.received(listener, 0.1))
            return len(found) >= len(received)

        wait_for(received_all)
        assert received == found
        listener.invalidate()


def test_a_lease_that_is_extended_lasts_and_one_that_is_lost_cannot_be(database, engine) -> None:
    record(engine, [event("e-1", "a"), event("e-2", "b")], now=NOW)
    lease, [kept, lost] = claimed(engine, now=NOW)
    with transaction(engine) as conn:
        deliveries.release(conn, [(lost.id, lease)], NOW)

    with transaction(engine) as conn:
        assert {(kept.id, lease)} == claims.extend(
            conn, [(kept.id, lease), (kept.id, uuid4()), (lost.id, lease)], NOW + timedelta(hours=1)
        )
        assert [] == claims.expire_leases(conn, NOW + timedelta(minutes=59), 10)

    assert [("leased", NOW + timedelta(hours=1))] == database.rows(
        "SELECT state, lease_until FROM delivery WHERE id = %s", kept.id
    )


@pytest.mark.parametrize(
    ("state", "reason", "becomes", "told"),
    [
        ("disabled", "why", "paused", [Aside(3), Aside(2), Aside()]),
        ("removed", None, "discarded", [Aside(0, {E2: 3}), Aside(0, {E2: 2}), Aside()]),
    ],
)
def test_what_is_pending_at_an_endpoint_that_is_not_active_is_set_aside(database, engine, state, reason, becomes, told) -> None:
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(5)], [1, 2], now=NOW)
    with database.connect() as owner:
        owner.execute("UPDATE endpoint SET state = %s, reason = %s WHERE id = 2", (state, reason))

    with transaction(engine) as conn:
        assert told == [inactive_endpoints.set_aside(conn, NOW, 3) for _ in range(3)]

    assert [(1, "pending", 5), (2, becomes, 5)] == database.rows(
        "SELECT endpoint_id, state, count(*) FROM delivery GROUP BY 1, 2 ORDER BY 1"
    )


def test_what_is_kept_for_a_removed_endpoint_is_given_up_a_piece_at_a_time_and_noted(database, engine) -> None:
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(5)], [1, 2], now=NOW, state="disabled")
    with database.connect() as owner:
        owner.execute("UPDATE endpoint SET state = 'removed' WHERE id = 2")

    with transaction(engine) as conn:
        assert [3, 2, 0] == [inactive_endpoints.give_up_abandoned(conn, NOW, 3).total for _ in range(3)]

    assert [(1, "paused", None, 5), (2, "discarded", "the endpoint was removed", 5)] == database.rows(
        "SELECT endpoint_id, state, error, count(*) FROM delivery GROUP BY 1, 2, 3 ORDER BY 1"
    )
    assert [("waxseal", "endpoint remove", {"tenant": "acme", "endpoint": "e1"}, count, "done") for count in (3, 2)] == (
        database.rows("SELECT who, act, filter, count, phase FROM audit ORDER BY id")
    )
