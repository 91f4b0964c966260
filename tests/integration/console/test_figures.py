"""The figures of the first page and of an endpoint: right, bounded, and shared by all who look."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from ops.admin import figures as shown
from ops.admin.figures import endpoint_figures, home
from ops.admin.search.counting import TryCounter
from ops.admin.search.found import BadSearch
from ops.admin.search.indexing import Indexer
from ops.runtime.db import make_engine
from pipeline.store.search import figures
from support.deliveries import event, record
from support.emptying import database
from workers.sequencer.worker import Sequencer

__all__ = ["database"]

ATTEMPT = """
INSERT INTO attempt (delivery_id, n, started_at, seconds, outcome, status, error)
SELECT %s, 1, %s, %s, %s, NULL, 'timeout'"""


@pytest.fixture(scope="module")
def console(shared_database) -> Iterator[Engine]:
    engine = make_engine(shared_database.console_url, pool_size=3)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def reads(shared_database) -> Iterator[Engine]:
    engine = make_engine(shared_database.console_url, pool_size=3, reads_as="waxseal_reader")
    yield engine
    engine.dispose()


@pytest.fixture(autouse=True)
def _not_kept(monkeypatch) -> None:
    monkeypatch.setattr(shown, "KEPT", 0.0)


@pytest.fixture
def two(database) -> Any:
    """Two tenants with an endpoint each."""
    for tenant in ("acme", "zoo"):
        database.add_tenant(tenant)
        database.add_endpoint("billing", "http://127.0.0.1/", tenant=tenant)
    return database


def index(database: Any, console: Engine) -> None:
    sealer = make_engine(database.sealer_url)
    while Sequencer(sealer).turn() == 0.0:
        pass
    sealer.dispose()
    while (turn := Indexer(console).turn()) is not None and turn.behind:
        pass


def whats(found: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    return {each["kind"]: (each["tenant"], each["name"], each["what"]) for each in found["problems"]}


def test_an_empty_system_has_no_problem_and_zeros_that_are_exact(two, reads) -> None:
    for tenant in ("acme", None):
        found = home(reads, tenant)
        assert [] == found["problems"]
        assert {"count": 0, "relation": "exact"} == found["numbers"]["pending"] == found["numbers"]["dead_letters"]
        assert {"accepted": 60, "delivered": 60, "failed": 60} == {name: len(each) for name, each in found["series"].items()}
        assert {None} == set(found["series"]["delivered"])  # nobody has counted


def test_tries_are_counted_by_minute_outcome_and_endpoint_however_often(two, console, reads, shared_engine) -> None:
    now = datetime.now(UTC)
    record(shared_engine, [event(f"e-{n}") for n in range(3)], [1], now=now)
    index(two, console)
    at = now - timedelta(minutes=3)
    for id_, seconds, outcome, when in (
        *((1, 0.02, "delivered", at), (2, 0.02, "delivered", at), (3, 4.0, "retry", at)),
        *((3, 0.02, "dead", now), (1, 0.02, "delivered", now - timedelta(hours=2))),
    ):
        two.run(ATTEMPT, id_, when, seconds, outcome)
    counter = TryCounter(console)
    assert [True, False] == [counter.turn(), counter.turn()]  # not again at once
    assert TryCounter(console).turn(now)
    series = home(reads, "acme")["series"]

    assert (3, 2, 2) == tuple(sum(filter(None, series[name])) for name in ("accepted", "delivered", "failed"))
    assert (0, 0) == tuple(sum(filter(None, home(reads, "zoo")["series"][name])) for name in ("accepted", "failed"))
    assert 3 == sum(filter(None, home(reads, None)["series"]["accepted"]))
    one = endpoint_figures(reads, "acme", "billing", 1)
    assert one is not None
    assert [2] == [n for n in one["series"]["delivered"] if n]
    assert [1] == [n for n in one["series"]["dead"] if n]
    busy = one["series"]["delivered"].index(2)
    assert 10 < one["series"]["p50_ms"][busy] < 25
    assert 2500 < one["series"]["p95_ms"][busy] < 5000
    assert {"count": 4, "relation": "exact"} == one["tried"]


def test_a_minute_is_counted_once_more_when_its_tries_are_settled_late(two, console, shared_engine) -> None:
    now = datetime.now(UTC).replace(second=30)
    record(shared_engine, [event("e-1")], [1], now=now)
    counter = TryCounter(console)
    counter.turn(now)
    two.run(ATTEMPT, 1, now, 30.0, "delivered")
    for minutes in range(2, 5):
        counter.turn(now + timedelta(minutes=minutes))
    late = two.rows("SELECT n FROM stat_minute")
    two.run(ATTEMPT, 1, now, 200.0, "retry")
    counter.turn(now + timedelta(minutes=7))

    assert [(1,)] == late
    assert [("delivered", 1), ("retry", 1)] == two.rows("SELECT outcome, n FROM stat_minute ORDER BY 1")


@pytest.mark.parametrize(("hours", "points"), [(1, 60), (3, 180), (24, 180), (168, 180)])
def test_a_plot_has_no_more_points_than_it_can_show(two, reads, hours, points) -> None:
    found = endpoint_figures(reads, "acme", "billing", hours)
    assert found is not None

    assert points == len(found["series"]["delivered"])
    assert endpoint_figures(reads, "acme", "nowhere", hours) is None
    assert endpoint_figures(reads, "nobody", "billing", hours) is None


def test_hours_beyond_a_week_are_refused(two, reads) -> None:
    for hours in (0, 169):
        with pytest.raises(BadSearch, match="1 to 168"):
            endpoint_figures(reads, "acme", "billing", hours)


def test_each_problem_is_named_where_it_is_and_to_whom_it_concerns(two, console, reads, shared_engine) -> None:
    long_ago = datetime.now(UTC) - timedelta(minutes=20)
    two.add_endpoint("slow", "http://127.0.0.1/")
    two.add_endpoint("failing", "http://127.0.0.1/")
    record(shared_engine, [event("e-1")], [3], now=long_ago)
    two.run("UPDATE endpoint SET state = 'disabled', reason = 'gone: 410' WHERE id = 1")
    two.run(
        "INSERT INTO endpoint_health (endpoint_id, breaker, opened_at, probe_at, last_error)"
        " VALUES (4, 'open', now(), now(), 'HTTP 500')"
    )
    two.run(
        "INSERT INTO dead_letter (stage, reason, detail, tenant, first_at, last_at)"
        " SELECT 'admit', 'malformed', '', tenant, %s, %s FROM unnest(ARRAY['acme', 'acme', NULL]) AS tenant",
        *(long_ago, long_ago),
    )
    two.add_source("mails", "imap")
    two.run(
        "INSERT INTO mailbox (id, credentials, settings, state, reason, state_at)"
        " VALUES (1, '', '{}', 'needs_reauthorization', 'revoked', now())"
    )
    two.run("INSERT INTO claim (tenant, word, checked_at, missing) VALUES ('acme', 'none', now(), 'entry 3 is altered')")
    two.run("INSERT INTO chain_aside (key, tenant, fault, since) VALUES (gen_random_uuid(), 'acme', 'no head', now())")
    found = whats(home(reads, "acme"))

    assert {
        "disabled": ("acme", "billing", "endpoint billing is disabled: gone: 410"),
        "breaker": ("acme", "failing", "the breaker of endpoint failing is open: HTTP 500"),
        "late": ("acme", "slow", "deliveries to endpoint slow are due and not tried"),
        "reauthorize": ("acme", "mails", "mailbox mails needs reauthorization: revoked"),
        "dead_letters": ("acme", None, "2 dead letters wait for a decision"),
        "claim": ("acme", None, "nothing can be claimed of acme's ledger: entry 3 is altered"),
        "chain_aside": ("acme", None, "1 chain was set aside in acme, nothing is added: no head"),
        "sequencer": ("acme", None, "entries wait for their position in the log"),
    } == found
    assert {} == whats(home(reads, "zoo"))
    assert (None, None, "3 dead letters wait for a decision") == whats(home(reads, None))["dead_letters"]
    since = {each["kind"]: each["since"] for each in home(reads, "acme")["problems"]}
    assert since["late"] == since["sequencer"] == since["dead_letters"] == long_ago.isoformat().replace("+00:00", "Z")


def test_an_index_that_is_behind_is_a_problem(two, console, reads, shared_engine) -> None:
    long_ago = datetime.now(UTC) - timedelta(minutes=20)
    record(shared_engine, [event("e-1")], [], now=long_ago)
    index(two, console)
    assert {} == whats(home(reads, "acme"))
    two.run("DELETE FROM search_progress")

    assert "1 entries are not in the search index yet" == whats(home(reads, "acme"))["index"][2]
    assert {"count": 1, "relation": "exact"} == home(reads, "acme")["numbers"]["not_indexed"]


def test_a_count_stops_at_its_bound_and_says_so(two, reads, shared_engine, monkeypatch) -> None:
    monkeypatch.setattr(figures, "CAPPED", 3)
    record(shared_engine, [event(f"e-{n}") for n in range(2)], [1])
    assert {"count": 2, "relation": "exact"} == home(reads, "acme")["numbers"]["pending"]
    record(shared_engine, [event("e-3")], [1])
    record(shared_engine, [event("e-4")], [2])

    assert {"count": 2, "relation": "at_least"} == home(reads, "acme")["numbers"]["pending"]
    assert {"count": 1, "relation": "exact"} == home(reads, "zoo")["numbers"]["pending"]


def test_many_who_look_at_once_ask_the_database_once(two, reads, monkeypatch) -> None:
    monkeypatch.setattr(shown, "KEPT", 5.0)
    first = home(reads, "zoo")

    assert first is home(reads, "zoo")
    assert first is not home(reads, "acme")
