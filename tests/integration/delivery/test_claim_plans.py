"""Postgres' plans: delivered rows are never read again, however many there are, and backlogs are skipped."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import sql
from sqlalchemy import Connection, Engine, TextClause

from ops.runtime.db import make_engine, transaction
from pipeline.store.deliveries import (
    claims,
    deliveries,
    endpoint_health,
    endpoint_overview,
    inactive_endpoints,
    ordering,
    paused,
    settling,
    undelivered,
)
from support.deliveries import claimed, event, record

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)

MANY = 100_000
BULK = f"""
INSERT INTO delivery (endpoint_id, tenant, chain_id, seq, size, state, attempts, created_at, settled_at)
SELECT 1 + n % 20, 'acme', gen_random_uuid(), n, 500, 'delivered', 1, now(), now() FROM generate_series(1, {MANY}) AS n
"""
BACKLOG = 4000  # deliveries of one subject, of one ordered endpoint
DUE = 600  # deliveries due at each of three other endpoints
HELD = {"ids": list(range(500)), "leases": [UUID(int=n) for n in range(500)]}


@pytest.fixture(scope="module")
def big(shared_database) -> Iterator[Engine]:
    """100,000 delivered rows, and a backlog of each kind. There is no vacuum."""
    shared_database.add_tenant()
    for n in range(20):
        shared_database.add_endpoint(f"e{n}", "http://127.0.0.1/", rate_limit=1000.0 if n == 2 else None)
    engine = make_engine(shared_database.worker_url, pool_size=2)
    with shared_database.connect() as owner:
        owner.execute("ALTER TABLE delivery SET (autovacuum_enabled = off)")
        owner.execute(BULK)
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(DUE)], [1, 2, 3], now=NOW)
    record(engine, [event(f"o-{n}", "ordered") for n in range(BACKLOG)], [4], now=NOW, ordered=True)
    record(engine, [event(f"m-{n}", f"s-{n}") for n in range(100)], [5], now=NOW, state="disabled")
    with shared_database.connect() as owner:
        owner.execute("INSERT INTO endpoint_health (endpoint_id, enabled_at) VALUES (5, %s)", (NOW,))
        owner.execute("UPDATE endpoint SET state = 'disabled', reason = 'why' WHERE id = 6")
    claimed(engine, limit=100, now=NOW)
    yield engine
    engine.dispose()


def chain(engine: Engine) -> UUID:
    with transaction(engine) as conn:
        return conn.exec_driver_sql("SELECT chain_id FROM chain WHERE subject = 'ordered'").scalar_one()


def statements(engine: Engine) -> dict[str, tuple[TextClause, dict[str, Any], int]]:
    """Each statement of the hot path, its parameters, and the most rows of `delivery` that it may read."""
    pair = {"endpoints": [4], "chains": [chain(engine)], "now": LATER}
    lanes = {"ids": [1, 2, 3, 1], "lanes": [0, 0, 0, 1], "limits": [100, 100, 100, 100]}
    any_time = {"since": None, "until": None}
    tried = {"outcomes": ["delivered"] * 500, "ns": [1] * 500, "starts": [NOW] * 500, "seconds": [0.1] * 500, "now": NOW}
    missing = dict.fromkeys(("dues", "summaries", "statuses", "errors", "details", "responses", "addresses", "reuses"))
    settled = {**tried, **missing, **dict.fromkeys(("dns", "connects", "tls", "first_bytes"))}
    return {
        "survey": (claims.SURVEY, {"after": 0, "limit": 1000}, 20),
        "look": (claims.LOOK, {"ids": [1, 2, 3, 4], "at_most": 4000}, 221),
        "claim": (claims.CLAIM, {**lanes, "lease": uuid4(), "now": LATER, "until": LATER}, 700),
        "count leased": (claims.COUNT_LEASED, {"at_most": 4000}, 101),
        "expire": (claims.EXPIRE_LEASES, {"now": LATER, "limit": 500}, 300),
        "extend": (claims.EXTEND_LEASES, {**HELD, "until": LATER}, 500),
        "set aside": (inactive_endpoints.SET_ASIDE, {"now": LATER, "limit": 500, "ids": None}, 10),
        "load": (deliveries.LOAD_LEASED, HELD, 500),
        "settle": (settling.SETTLE, {**HELD, **settled}, 500),
        "busy": (ordering.BUSY, {name: pair[name] for name in ("endpoints", "chains")}, 3),
        "pass on": (ordering.PASS_ON, pair, 6),
        "open turns": (ordering.OPEN, {"endpoint_id": 0, "chain": UUID(int=0), "limit": 100, "now": LATER}, 10),
        "count missed": (paused.COUNT, {"endpoint_id": 5}, 101),
        "missed late": (paused.LEFT, {}, 5),
        "release": (paused.RELEASE, {"endpoint_id": 5, "now": LATER, "limit": 10, **any_time}, 30),
        "unsettled": (undelivered.UNSETTLED_IDS, {**any_time, "endpoint_id": 5, "after": 0, "limit": 1000}, 101),
        "unsettled page": (undelivered.UNSETTLED, {"ids": list(range(MANY, MANY + 500))}, 500),
        "ended": (undelivered.ENDED, {**any_time, "endpoint_id": 5, "after": NOW, "after_id": 0, "limit": 500}, 0),
        "planned tries": (undelivered.COUNT_PLANNED, {"endpoint_ids": [1], "ids": None, "now": NOW}, DUE),
        "overview": (endpoint_overview.OVERVIEW, {"tenant": None, "name": "e4"}, 101),
        "troubled": (endpoint_overview.TROUBLED, {"now": NOW, "late": NOW, "limit": 1}, 2 * BACKLOG),
        "count undelivered": (inactive_endpoints.COUNT_UNDELIVERED, {"ids": [1, 5]}, DUE + 101),
        "give up": (inactive_endpoints.GIVE_UP, {"endpoint_id": 5, "limit": 10, "now": NOW}, 30),
        "give up all": (inactive_endpoints.GIVE_UP_ALL, {"endpoint_id": 5, "limit": 200, "now": NOW}, 300),
        "destinations": (endpoint_health.DESTINATIONS, {"now": NOW, "since": NOW}, 0),
    }


def plan_of(conn: Connection, statement: TextClause, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """The nodes of the executed plan."""
    compiled = statement.compile(dialect=conn.dialect)
    return plan_nodes(conn.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {compiled}", parameters).scalar_one())


def plan_nodes(found: Any) -> list[dict[str, Any]]:
    nodes, open_ = [], [(found if isinstance(found, list) else json.loads(found))[0]["Plan"]]
    while open_:
        nodes.append(open_.pop())
        open_ += nodes[-1].get("Plans", [])
    return nodes


def kept_plan_of(conn: Connection, statement: TextClause, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """The nodes of the generic plan, executed with these parameters."""
    names = list(parameters)
    numbered = re.sub(r"(?<!:):(\w+)", lambda match: f"${1 + names.index(match[1])}", statement.text)
    given = ", ".join(sql.Literal(value).as_string() for value in parameters.values())
    conn.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
    conn.exec_driver_sql(f"PREPARE kept AS {numbered}")
    try:
        return plan_nodes(conn.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE kept ({given})").scalar_one())
    finally:
        conn.exec_driver_sql("DEALLOCATE kept")


def looked_at(node: dict[str, Any]) -> float:
    """The rows that a node read in all of its loops."""
    return node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0))


@pytest.mark.parametrize("analysed", [False, True], ids=["never analysed", "analysed"])
def test_every_statement_of_the_hot_path_reads_what_it_is_about_and_nothing_else(shared_database, big, analysed) -> None:
    if analysed:
        with shared_database.connect() as owner:
            owner.execute("ANALYZE")
    for name, (statement, parameters, most) in statements(big).items():
        with big.connect() as conn:
            plan = plan_of(conn, statement, parameters)
            conn.rollback()
        scans = [node for node in plan if node.get("Relation Name") == "delivery" and "Scan" in node["Node Type"]]

        assert [] == [node for node in scans if node["Node Type"] == "Seq Scan"], name
        assert sum(map(looked_at, scans)) <= most, (name, scans)
        assert [] == [node for node in plan if node["Node Type"] == "Sort" and looked_at(node) > 500], name


@pytest.mark.parametrize("name", ["look", "claim", "load"])
def test_a_plan_that_is_kept_reads_no_more(big, name) -> None:
    statement, parameters, most = statements(big)[name]
    with big.connect() as conn:
        plan = kept_plan_of(conn, statement, parameters)
        conn.rollback()
    scans = [node for node in plan if node.get("Relation Name") == "delivery" and "Scan" in node["Node Type"]]

    assert [] == [node for node in scans if node["Node Type"] == "Seq Scan"]
    assert sum(map(looked_at, scans)) <= most


def test_the_turn_of_a_long_backlog_costs_no_more_at_its_end_than_at_its_beginning(shared_database, big) -> None:
    where = chain(big)

    def blocks() -> int:
        with big.connect() as conn:
            root = plan_of(conn, ordering.PASS_ON, {"endpoints": [4], "chains": [where], "now": LATER})[0]
            conn.rollback()
        return int(root["Shared Hit Blocks"] + root["Shared Read Blocks"])

    shared = "state = 'delivered', settled_at = now(), next_attempt_at = NULL, lease = NULL, lease_until = NULL"
    with shared_database.connect() as owner:
        owner.execute(f"UPDATE delivery SET {shared} WHERE endpoint_id = 4 AND seq = 0")
        first = blocks()
        owner.execute(f"UPDATE delivery SET {shared} WHERE endpoint_id = 4 AND seq < {BACKLOG - 100}")
    blocks()  # marks the dead entries of the index that it finds

    assert blocks() <= first + BACKLOG / 50  # it still reads index pages that hold only dead entries


def test_a_claim_takes_its_rows_from_the_front_of_each_lane(big) -> None:
    with big.connect() as conn:
        plan = plan_of(conn, *statements(big)["claim"][:2])
        conn.rollback()
    [scan] = [node for node in plan if node.get("Index Name") == "delivery_by_due"]

    assert "Index Scan" == scan["Node Type"]
    assert scan["Index Cond"].startswith("((endpoint_id = wanted.endpoint_id) AND (lane = wanted.lane) AND (next_attempt_at <=")
