"""Postgres' plans: whatever is searched for, pages read along indexes, and few rows, however many there are."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

import pytest
from anyio import CapacityLimiter
from sqlalchemy import Engine
from sqlalchemy import event as hooks
from starlette.requests import Request
from starlette.testclient import TestClient

from ops.admin import figures
from ops.admin.search.deliveries import deliveries, delivery
from ops.admin.search.events import Search, event, events, locate
from ops.admin.search.indexing import Indexer
from ops.admin.timeline import count_groups, dead_letters, timeline
from ops.admin.undelivered import undelivered_after
from ops.bench.console.asking import examples, requests
from ops.bench.console.filling import LONG, Filling, fill
from ops.bench.console.page_times import paths
from ops.runtime.db import make_engine
from ops.settings import Settings
from pipeline.store.admin import counts
from pipeline.store.deliveries.undelivered import Range
from pipeline.store.search import delivery_pages, event_pages
from schemas.access import EVERYWHERE, Principal
from schemas.dead_letter import DeadLetterFilter
from workers.console.app import make_app
from workers.console.call import Console

CHAINS = 1000
ENDPOINTS = 10
BIG = {"entry", "content", "delivery", "leaf", "chain", "event_search", "subject_search", "delivery_search", "dead_letter"}
SHOWN = 50
SCANNED = 200  # the bounds are lowered to this, a hundredth of all events


@pytest.fixture(scope="module")
def big(shared_database) -> Any:
    """20,000 events of one tenant, delivered to ten endpoints, and a tenant with few; indexed."""
    for tenant in ("acme", "zoo", "void"):
        shared_database.add_tenant(tenant)
        for n in range(ENDPOINTS):
            shared_database.add_endpoint(f"e{n}", "http://127.0.0.1/", tenant=tenant)
    owner = make_engine(shared_database.url, pool_size=3)
    fill(owner, [Filling("acme", CHAINS), Filling("zoo", 1)], lambda _line: None)
    owner.dispose()
    console = make_engine(shared_database.console_url, pool_size=1)
    indexer = Indexer(console)
    for _ in range(4):
        while (turn := indexer.turn()) is not None and turn.more:
            pass
    console.dispose()
    return shared_database


@pytest.fixture(scope="module")
def reads(big) -> Iterator[Engine]:
    engine = make_engine(big.console_url, reads_as="waxseal_reader")
    yield engine
    engine.dispose()


@pytest.fixture(autouse=True)
def _bounds(monkeypatch) -> None:
    monkeypatch.setattr(event_pages, "MOST_SCANNED", SCANNED)
    monkeypatch.setattr(delivery_pages, "MOST_SCANNED", SCANNED)
    monkeypatch.setattr(delivery_pages, "FEW", SCANNED)
    monkeypatch.setattr(figures, "KEPT", 0.0)
    monkeypatch.setattr(counts, "SUMMED_BELOW", 0)
    monkeypatch.setattr(counts, "EXACT_BELOW", 0)


def explained(engine: Engine, run: Callable[[], object]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The statements that the block runs, with the nodes of their executed plans."""
    ran: list[tuple[str, Any]] = []

    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: Any) -> None:
        ran.append((statement, parameters))

    hooks.listen(engine, "before_cursor_execute", note)
    try:
        run()
    finally:
        hooks.remove(engine, "before_cursor_execute", note)
    found = []
    with engine.connect() as conn:
        for statement, parameters in ran:
            told = conn.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters).scalar_one()
            nodes, open_ = [], [(told if isinstance(told, list) else json.loads(told))[0]["Plan"]]
            while open_:
                nodes.append(open_.pop())
                open_ += nodes[-1].get("Plans", [])
            found.append((statement, nodes))
    return found


def looked_at(node: dict[str, Any]) -> float:
    """The rows that a node read in all of its loops."""
    return node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0))


def check(engine: Engine, run: Callable[[], object], most: int) -> None:
    """No big table is read whole, and no statement reads more rows of one table than `most`."""
    for statement, nodes in explained(engine, run):
        scans = [node for node in nodes if node.get("Relation Name") in BIG and "Scan" in node["Node Type"]]
        assert [] == [node["Relation Name"] for node in scans if node["Node Type"] == "Seq Scan"], statement
        worst = max(scans, key=looked_at, default=None)
        assert worst is None or looked_at(worst) <= most, (statement, worst)
        by_id = [node for node in nodes if node.get("Index Name") == "event_search_by_id"]
        assert all(node["Shared Hit Blocks"] + node["Shared Read Blocks"] <= 20 + looked_at(node) for node in by_id), by_id


NOW = datetime.now(UTC)
SEARCHES: dict[str, dict[str, Any]] = {
    "newest": {},
    "type": {"type": "order.made"},
    "a type that is only far back": {"type": "audit.rare"},
    "no such type": {"type": "nothing"},
    "prefix of types": {"type": "order.*"},
    "prefix of a type far back": {"type": "audit.*"},
    "source": {"source": "till"},
    "type and source": {"type": "order.made", "source": "till"},
    "type and source that never meet": {"type": "audit.rare", "source": "nowhere"},
    "source and prefix that never meet": {"source": "till", "type": "zzz*"},
    "subject": {"subject": "order-7"},
    "subject and a type that it does not have": {"subject": "order-7", "type": "nothing"},
    "prefix of few subjects": {"subject": "order-77*"},
    "prefix of many subjects": {"subject": "order-*"},
    "prefix of many subjects and a type that they do not have": {"subject": "order-*", "type": "nothing"},
    "prefix of no subject": {"subject": "nobody*"},
    "id": {"id": "evt_ffff"},
    "prefix of ids": {"id": "evt_01*"},
    "prefix of ids and a source that they do not have": {"id": "evt_*", "source": "nowhere"},
    "long ago": {"until": NOW - timedelta(days=20)},
    "prefix of types long ago": {"until": NOW - timedelta(days=20), "type": "order.*"},
    "everything that never meets": {"type": "audit.*", "source": "nowhere", "subject": "order-*"},
    "a time without events": {"since": NOW + timedelta(days=1)},
}


@pytest.mark.parametrize("tenant", ["acme", "zoo", "void"])
@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_reads_along_an_index_and_no_more_than_its_bound(reads, tenant, name) -> None:
    search = Search(tenant, **SEARCHES[name])
    cursors: list[str | None] = [None]

    def page() -> None:
        cursors.append(events(reads, search, cursors[-1], SHOWN).next)

    most = 2 * SCANNED if "few subjects" not in name else 12 * LONG
    check(reads, page, most)
    if cursors[-1] is not None:  # and so does the page after it
        check(reads, page, most)


@pytest.mark.parametrize("tenant", ["acme", "zoo", "void"])
@pytest.mark.parametrize("state", [None, "pending", "leased", "delivered", "dead", "paused", "discarded"])
@pytest.mark.parametrize("endpoint", [None, "e3"])
def test_a_list_of_deliveries_reads_along_an_index_and_no_more_than_its_bound(reads, tenant, state, endpoint) -> None:
    cursors: list[str | None] = [None]

    def page() -> None:
        cursors.append(deliveries(reads, tenant, state=state, endpoint=endpoint, cursor=cursors[-1], limit=SHOWN).next)

    check(reads, page, 3 * SCANNED)
    if cursors[-1] is not None:
        check(reads, page, 3 * SCANNED)


@pytest.mark.parametrize("tenant", ["acme", "zoo", "void"])
@pytest.mark.parametrize("endpoint", [None, "e3"])
def test_what_endpoints_lack_is_read_along_indexes_of_that(reads, tenant, endpoint) -> None:
    def page(after: list[Any] | None) -> list[Any]:
        return list(islice(undelivered_after(reads, tenant, endpoint, Range(), after, SHOWN + 1), SHOWN + 1))

    check(reads, lambda: page(None), SCANNED)
    found = page(None)
    if found:
        check(reads, lambda: page(found[-1][0]), SCANNED)


@pytest.mark.parametrize("tenant", ["acme", "zoo", "void", None])
@pytest.mark.parametrize("more", [{}, {"endpoint": "e3"}, {"reason": "gone"}, {"closed": True}], ids=str)
def test_a_list_of_dead_letters_reads_those_of_the_tenant_only(reads, tenant, more) -> None:
    wanted = DeadLetterFilter(tenant, **more)

    check(reads, lambda: list(dead_letters(reads, wanted, SHOWN + 1)), SCANNED)
    if not wanted.closed:
        check(reads, lambda: count_groups(reads, wanted), SCANNED)


@pytest.mark.parametrize("subject", ["order-7", "nobody", "x" * 600])
def test_a_subject_is_found_by_an_index_or_not_at_all(big, reads, subject) -> None:
    settings = Settings(database_url=big.url, keys=big.key)

    def entries() -> list[Any]:
        return list(timeline(reads, settings, "acme", subject, limit=SHOWN + 1, bodies=False, scan=False))

    assert (LONG if subject == "order-7" else 0) == len(entries())
    check(reads, entries, SHOWN + 1)


@pytest.mark.parametrize("tenant", ["acme", "void"])
def test_every_page_and_operation_reads_big_tables_along_indexes(big, reads, tenant) -> None:
    acts = make_engine(big.console_url, pool_size=2)
    with reads.connect() as conn:
        known = {each["tenant"]: each for each in examples(conn, 1)}
    values = known.get(tenant, {"tenant": tenant, "subject": "none", "event_id": "none", "type": "none", "endpoint": "e1"})

    async def authenticate(_request: Request) -> Principal:
        return Principal("ann", {EVERYWHERE: "admin"}, "token", "t1")

    settings = Settings(database_url=big.console_url, keys=big.key)
    console = Console(settings, reads, acts, CapacityLimiter(2), authenticate)
    with TestClient(make_app(console), follow_redirects=False) as client:
        wanted = dict(requests(paths(), values))
        for address in wanted.values():
            check(reads, lambda address=address: answered(client, address), 3 * SCANNED)
    acts.dispose()

    assert len(wanted) > 40


def answered(client: TestClient, address: str) -> None:
    assert client.get(address).status_code in (200, 303), address


def test_one_thing_is_read_by_its_keys(reads) -> None:
    (row, *_) = events(reads, Search("acme"), None, 1).rows

    check(reads, lambda: event(reads, "acme", UUID(row["chain"]), row["seq"]), 2)
    check(reads, lambda: delivery(reads, "acme", 1234), 2)
    for tenant in ("acme", None):
        for text in (row["id"], row["chain"], "1234", "nothing"):
            check(reads, lambda tenant=tenant, text=text: locate(reads, tenant, text), 2)


@pytest.mark.parametrize("tenant", ["acme", "zoo", "void", None])
def test_the_figures_of_the_first_page_are_counts_with_a_bound(reads, tenant) -> None:
    check(reads, lambda: figures.home(reads, tenant), 600)


def test_the_figures_of_an_endpoint_are_read_by_the_minute(reads) -> None:
    check(reads, lambda: figures.endpoint_figures(reads, "acme", "e1", 168), 2)
