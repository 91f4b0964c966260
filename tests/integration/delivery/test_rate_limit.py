"""The rate limit of an endpoint: a token bucket in Postgres, shared by all relays."""

import threading
from datetime import UTC, datetime, timedelta
from itertools import combinations

import pytest
from sqlalchemy import Engine

from ops.runtime.db import make_engine, transaction
from pipeline.claim import Round
from pipeline.store.deliveries import deliveries
from support.deliveries import event, one_round, record
from support.waiting import wait_for

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def claimed(engine: Engine, now: datetime) -> Round:
    return one_round(engine, now, window=1000)[1]


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@pytest.fixture
def limited(database, engine) -> None:
    """An endpoint limited to 10/s and one without a limit, each with 200 deliveries due."""
    database.add_tenant()
    database.add_endpoint("limited", "http://127.0.0.1/", rate_limit=10.0)
    database.add_endpoint("free", "http://127.0.0.1/")
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(200)], [1, 2], now=NOW)


def counts(found: Round) -> dict[int, int]:
    return {id: looked.claimed for id, looked in found.looked.items() if looked.claimed}


def test_one_seconds_worth_comes_at_once_and_the_others_at_the_rate(engine, limited) -> None:
    assert {1: 10, 2: 200} == counts(claimed(engine, NOW))
    empty = claimed(engine, NOW + seconds(0.05))
    assert {} == counts(empty)
    assert NOW + seconds(0.1) == empty.looked[1].look_at

    assert [1, 4, 10] == [counts(claimed(engine, NOW + seconds(after)))[1] for after in (0.1, 0.5, 60)]


def test_what_is_handed_back_has_cost_its_token(database, engine, limited) -> None:
    found = claimed(engine, NOW)
    [(lease,)] = database.rows("SELECT DISTINCT lease FROM delivery WHERE state = 'leased' AND endpoint_id = 1")
    with transaction(engine) as conn:
        deliveries.release(conn, [(each.id, lease) for each in found.claims if each.endpoint_id == 1], NOW)

    assert {} == counts(claimed(engine, NOW + seconds(0.05)))


def test_concurrent_claims_take_from_one_bucket(database, engine, limited) -> None:
    taken: list[int] = []

    def claim_all() -> None:
        own = make_engine(database.worker_url, pool_size=1)
        taken.extend(counts(claimed(own, NOW + seconds(after))).get(1, 0) for after in (0.0, 0.5, 1.0))
        own.dispose()

    threads = [threading.Thread(target=claim_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    left = counts(claimed(engine, NOW + seconds(1.0))).get(1, 0)  # what each left because another held the bucket
    assert 20 == sum(taken) + left


@pytest.mark.parametrize("rate", [0.5, 15.0])
def test_a_relay_hands_out_at_the_rate_and_no_faster(database, engine, start, lateness, rate) -> None:
    database.add_tenant()
    database.add_endpoint("limited", "http://127.0.0.1/", rate_limit=rate, max_in_flight=1000)
    burst = max(1, int(rate))
    count = burst + max(2, int(3 * rate))
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(count)])

    start("relay", lease=90)
    wait_for(lambda: [("leased", count)] == database.rows("SELECT state, count(*) FROM delivery GROUP BY 1"))

    claimed = [at for (at,) in database.rows("SELECT lease_until FROM delivery ORDER BY 1")]  # each 90 s earlier
    for first, last in combinations(range(count), 2):
        span = (claimed[last] - claimed[first]).total_seconds()
        assert last - first + 1 <= burst + rate * span + 0.01, f"{last - first + 1} within {span:.2f} s"
    assert (claimed[-1] - claimed[0]).total_seconds() < 2 * (count - burst) / rate + lateness()
