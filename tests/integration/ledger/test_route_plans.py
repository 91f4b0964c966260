"""Postgres' plans of what processes and commands do beside many entries and deliveries: all of it reads along indexes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from ops.admin.erasure import keeping
from ops.bench.console.filling import Filling, fill
from ops.runtime.db import make_engine, transaction
from pipeline.ledger.sequence import sequence
from pipeline.store.admin import counts, removal
from pipeline.store.deliveries import claims, deliveries, settling
from pipeline.store.log import pending
from pipeline.store.moving import arrival, moves
from pipeline.store.moving.removal import LETTERS_OF_DELIVERIES
from schemas.delivery import Receipt, Settlement
from support.cli import Cli
from support.deliveries import claimed, event, record
from support.ledger.explained_log import ExplainedLog, Plan

CHAINS = 300
BIG = {"entry", "content", "delivery", "leaf", "chain", "dead_letter"}
BATCH = 100  # events
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def big(shared_database, servers) -> tuple:
    """6,000 delivered events of one tenant."""
    shared_database.add_tenant()
    for n in range(3):
        shared_database.add_endpoint(f"e{n}", "http://127.0.0.1/")
    owner = make_engine(shared_database.url, pool_size=3)
    fill(owner, [Filling("acme", CHAINS)], lambda _line: None)
    owner.dispose()
    shared_database.close()
    return shared_database, ExplainedLog(shared_database.url, servers.data / "log" / "postgres.log")


@contextmanager
def logged_in(url: str) -> Iterator[Engine]:
    engine = make_engine(url, pool_size=1)
    try:
        yield engine
    finally:
        engine.dispose()


def ingest(big) -> None:
    with logged_in(big.worker_url) as engine:
        for _ in range(2):  # then all of them are duplicates
            record(engine, [event(f"e-{n}", f"order-{n % 20}") for n in range(BATCH)], now=NOW)


def deliver(big) -> None:
    with logged_in(big.worker_url) as engine:
        with transaction(engine) as conn:
            claims.survey(conn)
        lease, found = claimed(engine, BATCH, now=NOW)
        assert found
        with transaction(engine) as conn:
            deliveries.load_leased(conn, [(each.id, lease) for each in found])
            receipt = Receipt(NOW, 0.1, 204)
            tried = [(lease, Settlement(each.id, 1, "delivered", receipt, None)) for each in found[: BATCH // 2]]
            settling.settle(conn, tried, NOW)
        with transaction(engine) as conn:
            assert claims.expire_leases(conn, NOW + timedelta(hours=1), BATCH)


def give_positions(big) -> None:
    with logged_in(big.sealer_url) as engine, transaction(engine) as conn:
        assert pending.sizes(conn)[1]
        sequence(conn, "acme", most=BATCH)


def remove(big) -> None:
    before = NOW - timedelta(days=2)
    with logged_in(big.eraser_url) as engine, transaction(engine) as conn:
        removal.oldest(conn)
        removal.remove_deliveries(conn, before, 0, BATCH)
        for what in ("dead_letters", "operator_events", "endpoint_events", "audit", "verifications", "mail_items"):
            removal.remove_told(conn, what, before, keeping.TOLD)


def frozen_tenant(big) -> None:
    """What a move does while nothing is recorded for the tenant, which must not take longer in a larger database."""
    with logged_in(big.url) as engine, engine.connect() as conn:
        arrival.work(conn, "acme")
        for table in ("delivery", "attempt"):
            conn.exec_driver_sql(f"SELECT FROM {table} WHERE {arrival.ROWS[table]}", {"tenant": "acme"})
        moves.give_up(conn, "acme", NOW)
        conn.rollback()


def delete_chains(big) -> None:
    """A piece of what a tenant left behind, beside many dead letters."""
    with logged_in(big.url) as engine, engine.connect() as conn:
        conn.exec_driver_sql("SET LOCAL auto_explain.log_min_duration = -1")
        conn.exec_driver_sql(DEAD_LETTERS)
        conn.exec_driver_sql("SET LOCAL auto_explain.log_min_duration = 0")
        chains = conn.exec_driver_sql("SELECT chain_id FROM chain ORDER BY key LIMIT 5").scalars().all()
        conn.execute(LETTERS_OF_DELIVERIES, {"chains": chains})
        conn.rollback()


DEAD_LETTERS = """
    INSERT INTO dead_letter (stage, reason, detail, tenant, endpoint_id, delivery_id, first_at, last_at)
    SELECT 'deliver', 'exhausted', '', tenant, endpoint_id, id, now(), now() FROM delivery; ANALYZE dead_letter"""


def command(*words: str) -> Callable[..., None]:
    def run(big) -> None:
        ended = Cli(big).run(*words)
        assert ended.exit_code in (0, 1), ended.output

    return run


BATCHES: dict[str, Callable[..., None]] = {
    "ingest": ingest,
    "deliver": deliver,
    "sequencer": give_positions,
    "eraser": remove,
    "move": frozen_tenant,
    "finish": delete_chains,
}
ACTS: dict[str, Callable[..., None]] = {
    **BATCHES,
    **{
        words[0]: command(*words)
        for words in (
            ("status",),
            ("doctor",),
            ("timeline", "acme", "order-7"),  # by tenant and subject: its key is another one
            ("deliveries", "acme", "--limit", "20"),
            ("undelivered", "acme", "--limit", "20"),
            ("dead", "list"),
            ("export", "acme", "--subject", "order-7", "-o", "order-7.jsonl"),
        )
    },
}


def reads_too_much(plan: Plan, most: int, most_in_order: int) -> list[tuple]:
    """What it reads of big tables: more rows than it has to, or all of them in the table's order."""
    found = []
    for node in (each for each in plan.nodes if each.get("Relation Name") in BIG and "Scan" in each["Node Type"]):
        whole, rows = node["Node Type"] == "Seq Scan", node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        if rows > most_in_order if whole else rows * node["Actual Loops"] > most:
            found.append((node["Node Type"], node["Relation Name"], rows))
    return found


@pytest.mark.parametrize("act", ACTS)
def test_what_processes_and_commands_do_reads_along_indexes(big, act, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(counts, "SUMMED_BELOW", 0)
    monkeypatch.setattr(counts, "EXACT_BELOW", 0)
    monkeypatch.chdir(tmp_path)
    database, log = big
    log.plans()
    ACTS[act](database)
    database.close()
    plans = log.plans()

    assert any(each["Node Type"] for plan in plans for each in plan.nodes)
    most = 4 * BATCH if act in BATCHES else 2 * BATCH
    in_order = 2 * CHAINS if act == "ingest" else BATCH  # twenty heads of so few chains are read with all others
    assert [] == [(found, plan.statement) for plan in plans if (found := reads_too_much(plan, most, in_order))]
