"""The rate limit of an endpoint: a token bucket in Postgres, shared by all relays."""

import threading
import time
from datetime import UTC, datetime, timedelta
from itertools import combinations
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from ops.runtime.db import make_engine, transaction
from pipeline.claim import Lease, Round, claim
from pipeline.store.deliveries import claims, deliveries
from support.deliveries import LEASE, event, owe
from support.sink import Sink
from support.waiting import wait_for

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def claimed(engine: Engine, now: datetime) -> Round:
    lease = Lease(uuid4(), now, now + LEASE)
    with transaction(engine) as conn:
        return claim(conn, claims.survey(conn), lease, lambda _: 1000, limit=500, max_leased=4000, random=0.5)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@pytest.fixture
def limited(database, engine) -> None:
    """An endpoint limited to 10/s and one without a limit, each with 200 deliveries due."""
    database.add_tenant()
    database.add_endpoint("limited", "http://127.0.0.1/", rate_limit=10.0)
    database.add_endpoint("free", "http://127.0.0.1/")
    owe(engine, [event(f"e-{n}", f"s-{n}") for n in range(200)], [1, 2], now=NOW)


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


def test_many_who_claim_at_once_take_from_one_bucket(database, engine, limited) -> None:
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
def test_requests_arrive_at_the_rate_and_no_faster(database, engine, start, rate) -> None:
    sink = Sink()
    sink.start()
    database.add_tenant()
    database.add_endpoint("limited", sink.url("/200"), rate_limit=rate)
    burst = max(1, int(rate))
    count = burst + max(2, int(3 * rate))
    owe(engine, [event(f"e-{n}", f"s-{n}") for n in range(count)])
    start("deliver")
    time.sleep(1.5)

    start("relay")
    wait_for(lambda: [("delivered", count)] == database.rows("SELECT state, count(*) FROM delivery GROUP BY 1"))
    sink.stop()

    starts = [at for (at,) in database.rows("SELECT started_at FROM attempt ORDER BY 1")]
    slack = 0.3  # seconds by which sending may lag behind the claim
    for first, last in combinations(range(count), 2):
        span = (starts[last] - starts[first]).total_seconds() + slack
        assert last - first + 1 <= burst + 1 + rate * span, f"{last - first + 1} within {span:.2f} s"
    assert (starts[-1] - starts[0]).total_seconds() < 2 * (count - burst) / rate
