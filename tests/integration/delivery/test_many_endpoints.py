"""Thousands of endpoints with nothing to claim do not delay others, and cost little."""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, TextClause
from sqlalchemy.exc import OperationalError
from test_claim_plans import plan_of

from ops.runtime.db import make_engine
from pipeline.claim import Lease, Outlook, Round, claim_from
from pipeline.store.deliveries import claims, inactive_endpoints, notify, paused
from support.deliveries import event, record
from support.waiting import wait_for
from workers.amqp.confirm_window import Outgoing
from workers.relay.worker import PAGE, Relay

MANY, HELD = 20_000, 19_000
PAUSED = 20_000  # deliveries of one endpoint that is disabled
ROUNDS = 5  # per second, if each takes 200 ms
ENDPOINTS = f"""
    INSERT INTO endpoint (tenant_id, name, url, settings)
    SELECT tenant.id, 'e-' || n, 'http://127.0.0.1/',
           CASE WHEN n <= {HELD} AND n % 3 = 0 THEN '{{"rate_limit": 0.001}}' ELSE '{{}}' END::jsonb
    FROM tenant, generate_series(1, {MANY}) AS n"""
HEALTH = f"""
    INSERT INTO endpoint_health (endpoint_id, breaker, opened_at, probe_at, not_before, tokens, tokens_at)
    SELECT n, CASE WHEN n % 3 = 1 THEN 'open' ELSE 'closed' END, CASE WHEN n % 3 = 1 THEN now() END,
           CASE WHEN n % 3 = 1 THEN now() + interval '1 hour' END, CASE WHEN n % 3 = 2 THEN now() + interval '1 hour' END,
           CASE WHEN n % 3 = 0 THEN 0 END, CASE WHEN n % 3 = 0 THEN now() END
    FROM generate_series(1, {HELD}) AS n"""
OVERDUE = f"""
    INSERT INTO delivery (endpoint_id, tenant, chain_id, seq, size, state, created_at, next_attempt_at)
    SELECT n, 'acme', gen_random_uuid(), 0, 10, 'pending', now(), now() - interval '1 hour'
    FROM generate_series(1, {HELD}) AS n"""
KEPT = f"""
    INSERT INTO delivery (endpoint_id, tenant, chain_id, seq, size, state, created_at)
    SELECT {MANY}, 'acme', gen_random_uuid(), 0, 10, 'paused', now() FROM generate_series(1, {PAUSED}) AS n"""


class Taken:
    """A broker that confirms everything at once."""

    def ready(self) -> str | None:
        return None

    def publish_all(self, messages: Sequence[Outgoing], _seconds: float) -> list[bool]:
        return [True] * len(messages)


@pytest.fixture(scope="module")
def crowd(shared_database) -> Iterator[Engine]:
    """20,000 endpoints. 19,000 have a delivery that is overdue by an hour and held for another. Never analysed."""
    shared_database.add_tenant()
    with shared_database.connect() as owner:
        owner.execute("ALTER TABLE delivery SET (autovacuum_enabled = off)")
        for statement in (ENDPOINTS, HEALTH, OVERDUE, KEPT):
            owner.execute(statement)
        owner.execute("UPDATE endpoint SET state = 'disabled', reason = 'why' WHERE id = %s", (MANY,))
    engine = make_engine(shared_database.worker_url, pool_size=8)
    yield engine
    engine.dispose()


@pytest.fixture
def relay(crowd) -> Iterator[Relay]:
    relay = Relay(crowd, Taken(), lease=90.0, max_leased=4000)  # type: ignore[arg-type]
    yield relay
    relay.close()


@pytest.fixture
def is_leased(shared_database) -> Callable[[int], bool]:
    return lambda endpoint_id: (endpoint_id,) in shared_database.rows("SELECT endpoint_id FROM delivery WHERE state = 'leased'")


def test_what_is_due_at_others_is_claimed_at_once(crowd, relay, is_leased) -> None:
    free, first, notified, asked = range(HELD + 1, HELD + 5)
    record(crowd, [event("before-it-began")], [first])
    record(crowd, [event("as-old-as-the-others", "s-1")], [free], now=datetime(2026, 1, 1, tzinfo=UTC))

    for _ in range(ROUNDS):
        relay.turn()
    assert is_leased(first), "found by the first survey"
    assert is_leased(free)

    record(crowd, [event("notified", "s-2")], [notified])
    relay.turn(range(1, notified + 1))  # every endpoint is notified
    relay.turn()
    assert is_leased(notified)

    record(crowd, [event("asked", "s-3")], [asked])
    relay.turn([notify.ANY])

    def found_after_a_turn() -> bool:
        time.sleep(min(1.0, relay.turn()))
        return is_leased(asked)

    wait_for(found_after_a_turn)  # by another survey; each is followed by a rest of the same length


def test_what_a_claim_took_before_its_connection_was_lost_is_claimed_again_at_once(
    crowd, relay, is_leased, shared_database, monkeypatch
) -> None:
    leases = []

    def lost(conn: Connection, outlook: Outlook, lease: Lease, *others: Any, **options: Any) -> Round:
        leases.append(lease.id)
        taken = claim_from(conn, outlook, lease, *others, **options)
        if len(leases) == 1:
            assert [each.endpoint_id for each in taken.claims] == [endpoint_id]
            conn.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
        return taken

    endpoint_id = HELD + 6
    while relay.turn() < 0.01:
        pass
    monkeypatch.setattr("workers.relay.worker.claim_from", lost)
    record(crowd, [event("claimed-twice", "s-6")], [endpoint_id])
    with pytest.raises(OperationalError):
        relay.turn([endpoint_id])
    assert is_leased(endpoint_id)
    relay.turn()

    assert [(leases[1],)] == shared_database.rows(f"SELECT lease FROM delivery WHERE endpoint_id = {endpoint_id}")


def test_a_relay_with_nothing_to_claim_is_idle_however_many_wait(crowd, relay) -> None:
    for _ in range(ROUNDS):
        relay.turn()
    began, worked, rounds = time.monotonic(), time.thread_time(), 0
    while (passed := time.monotonic() - began) < 3.0:
        time.sleep(relay.turn())
        rounds += 1

    assert rounds <= 20 * passed
    assert time.thread_time() - worked < 0.3 * passed


STATEMENTS: dict[str, tuple[TextClause, dict[str, object], int]] = {
    "survey": (claims.SURVEY, {"after": 0, "limit": PAGE}, 2 * PAGE),
    "look": (claims.LOOK, {"ids": list(range(1, 401, 2)), "at_most": 4000}, 500),
    "set aside": (inactive_endpoints.SET_ASIDE, {"now": datetime.now(UTC), "limit": 1000, "ids": None}, 10),
    "abandoned": (inactive_endpoints.ABANDONED, {}, 10),
    "expire": (claims.EXPIRE_LEASES, {"now": datetime.now(UTC), "limit": 1000}, 100),
    "count leased": (claims.COUNT_LEASED, {"at_most": 4000}, 100),
    "missed late": (paused.LEFT, {}, 10),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_of_a_round_reads_more_of_the_deliveries_than_it_is_about(crowd, name) -> None:
    statement, parameters, most = STATEMENTS[name]
    with crowd.connect() as conn:
        scans = _scans(conn, statement, parameters)
        conn.rollback()

    assert [] == [node for node in scans if node["Node Type"] == "Seq Scan"]
    assert sum(node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) for node in scans) <= most


def _scans(conn: Connection, statement: TextClause, parameters: dict[str, object]) -> list[dict]:
    return [
        node
        for node in plan_of(conn, statement, parameters)
        if node.get("Relation Name") == "delivery" and "Scan" in node["Node Type"]
    ]
