"""Search for events and deliveries: what is found, in which order, in pages that leave nothing out, and within what bounds."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from ops.admin.search import cursors
from ops.admin.search.cursors import BadCursor
from ops.admin.search.deliveries import answers, deliveries, delivery
from ops.admin.search.events import Search, content, event, events, locate
from ops.admin.search.found import BadSearch, Found
from ops.admin.search.indexing import Indexer
from ops.errors import OpsError
from ops.runtime.db import make_engine, transaction
from ops.settings import Settings
from pipeline.append import append
from pipeline.store.search import delivery_pages, event_pages
from schemas.endpoint import Endpoint
from support.ledger.events import event_of
from workers.sequencer.worker import Sequencer

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOSTILE = ("100%", "a_b", "back\\slash", "quo'te", "naïve", "\U0010ffff-last", "x" * 2000)


def record(
    engine: Engine, tenant: str, at: datetime, *made: tuple[str, str, str, str], endpoints: tuple[int, ...] = ()
) -> None:
    """Records events: subject, id, type and source of each."""
    subscribed = tuple((Endpoint(id_, tenant, f"e{id_}", "http://127.0.0.1/"), lambda _attributes: True) for id_ in endpoints)
    with transaction(engine) as conn:
        given = [
            event_of((tenant * 8)[:32].encode(), tenant, subject, id_, type=type_, source=source)
            for subject, id_, type_, source in made
        ]
        append(conn, given, {tenant: subscribed}, at)


def index(database: Any, **others: Any) -> None:
    """Sequences and indexes all there is."""
    sealer, console = make_engine(database.sealer_url), make_engine(database.console_url)
    sequencer, indexer = Sequencer(sealer), Indexer(console, **others)
    while sequencer.turn() == 0.0:
        pass
    while (turn := indexer.turn()) is not None and (turn.more or turn.behind):
        pass
    for each in (sealer, console):
        each.dispose()


@pytest.fixture(scope="module")
def filled(shared_database) -> Any:
    """Two tenants: 60 orders and 7 events with hostile texts of acme, each to two endpoints, and one event of zoo."""
    for tenant in ("acme", "zoo"):
        shared_database.add_tenant(tenant)
    first, second = (shared_database.add_endpoint(name, "http://127.0.0.1/") for name in ("billing", "stock"))
    writer = make_engine(shared_database.worker_url)
    for n in range(60):
        made = (f"order-{n % 12}", f"evt-{n:03}", f"order.{'paid' if n % 3 else 'shipped'}", "shop" if n % 2 else "till")
        record(writer, "acme", NOON + timedelta(minutes=n), made, endpoints=(first, second))
    for n, text in enumerate(HOSTILE):
        record(writer, "acme", NOON + timedelta(hours=2, minutes=n), (text, text, text, "shop"))
    record(writer, "zoo", NOON, ("order-1", "evt-001", "order.paid", "shop"))
    writer.dispose()
    index(shared_database)
    return shared_database


@pytest.fixture(scope="module")
def reads(filled) -> Iterator[Engine]:
    """The pool that pages read with."""
    engine = make_engine(filled.console_url, statement_timeout=5, reads_as="waxseal_reader")
    yield engine
    engine.dispose()


def all_of(reads: Engine, limit: int = 7, **search: Any) -> list[str]:
    """The ids of all pages."""
    found, cursor = [], None
    while True:
        page = events(reads, Search(**{"tenant": "acme", **search}), cursor, limit)
        found += [row["id"] for row in page.rows]
        if (cursor := page.next) is None:
            return found


def ids(*numbers: int) -> list[str]:
    return [f"evt-{n:03}" for n in numbers]


def test_all_events_of_a_tenant_are_found_newest_first_and_each_once(reads) -> None:
    assert [*reversed(HOSTILE), *ids(*range(59, -1, -1))] == all_of(reads)
    assert ids(1) == all_of(reads, tenant="zoo")
    assert [] == all_of(reads, tenant="nobody")


@pytest.mark.parametrize(
    ("search", "wanted"),
    [
        ({"type": "order.shipped"}, range(57, -1, -3)),
        ({"type": "order.*"}, range(59, -1, -1)),
        ({"type": "order.*", "source": "till"}, range(58, -1, -2)),
        ({"type": "order.shipped", "source": "till"}, range(54, -1, -6)),
        ({"type": "order"}, ()),
        ({"source": "till"}, range(58, -1, -2)),
        ({"source": "nowhere"}, ()),
        ({"subject": "order-7"}, range(55, -1, -12)),
        ({"subject": "order-1*"}, [n for n in range(59, -1, -1) if n % 12 in (1, 10, 11)]),
        ({"subject": "order-1*", "type": "order.shipped"}, [n for n in range(57, -1, -3) if n % 12 in (1, 10, 11)]),
        ({"subject": "order-*", "source": "till"}, range(58, -1, -2)),
        ({"subject": "nobody"}, ()),
        ({"id": "evt-007"}, [7]),
        ({"id": "evt-01*", "subject": "order-7"}, [19]),
        ({"id": "evt-01*", "subject": "order-1*", "type": "order.paid"}, [10, 11, 13]),
        ({"id": "evt-01*"}, range(10, 20)),
        ({"id": "evt-01*", "source": "till"}, range(10, 20, 2)),
        ({"since": NOON + timedelta(minutes=50), "until": NOON + timedelta(minutes=55)}, range(54, 49, -1)),
        ({"subject": "order-7", "until": NOON + timedelta(minutes=31)}, [19, 7]),
        ({"type": "order.*", "since": NOON + timedelta(minutes=57)}, [59, 58, 57]),
    ],
    ids=str,
)
@pytest.mark.parametrize("limit", [1, 200])
def test_each_filter_and_each_two_of_them_find_what_matches(reads, search, wanted, limit) -> None:
    assert ids(*wanted) == all_of(reads, limit, **search)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_text_is_found_as_it_is_whatever_it_holds(reads, text) -> None:
    for by in ("type", "subject", "id"):
        assert [text] == all_of(reads, **{by: text}), by
        assert [text] == all_of(reads, **{by: text[:-1] + "*"}), by
        assert [] == all_of(reads, **{by: text + "y"}), by


def test_what_no_text_is_is_refused_with_a_reason(reads) -> None:
    for wanted, said in (("a\x00", "NUL"), ("\ud800", "Unicode")):
        for by in ("type", "source", "subject", "id", "tenant"):
            with pytest.raises(BadSearch, match=said):
                all_of(reads, **{by: wanted})
    for limit in (0, 201):
        with pytest.raises(BadSearch, match="1 to 200"):
            all_of(reads, limit)


def test_a_search_that_matches_little_stops_says_where_and_goes_on(reads, monkeypatch) -> None:
    monkeypatch.setattr(event_pages, "MOST_SCANNED", 10)
    search = Search("acme", source="till", type="nothing*")
    page = events(reads, search, None, 5)

    assert ([], NOON + timedelta(minutes=40)) == (page.rows, page.searched_to)
    assert page.next is not None
    assert NOON + timedelta(minutes=20) == events(reads, search, page.next, 5).searched_to
    assert [] == all_of(reads, source="till", type="nothing*")
    assert ids(*range(54, -1, -6)) == all_of(reads, 2, source="till", type="order.shipped")


def test_an_event_shows_its_deliveries_by_state(reads) -> None:
    (row,) = events(reads, Search("acme", id="evt-007"), None, 5).rows

    assert {"pending": 2} == row["deliveries"]
    assert ("order-7", "order.paid", "shop", 2, False) == tuple(
        row[name] for name in ("subject", "type", "source", "size", "erased")
    )


def test_a_cursor_is_good_for_its_own_filter_only_and_cannot_be_made(reads) -> None:
    cursor = events(reads, Search("acme"), None, 5).next
    assert cursor is not None
    altered = ("A" if cursor[0] != "A" else "B") + cursor[1:]
    for search, given in [
        (Search("zoo"), cursor),
        (Search("acme", type="order.*"), cursor),
        (Search("acme"), altered),
        (Search("acme"), cursor[:-2]),
        (Search("acme"), ""),
        (Search("acme"), "*"),
        (Search("acme"), "ä" * 100_000),
    ]:
        with pytest.raises(BadCursor):
            events(reads, search, given, 5)


def test_processes_with_a_common_key_take_each_others_cursors(monkeypatch) -> None:
    monkeypatch.setattr(cursors, "_SIGNER", cursors._Signer())
    cursors.sign_with(["old"])
    cursor = cursors.encode([1, "ä", None, NOON], {"a": 1})
    cursors.sign_with(["new", "old"])

    assert [1, "ä", None, "2026-01-01T12:00:00+00:00"] == cursors.decode(cursor, {"a": 1})
    cursors.sign_with(["new"])
    with pytest.raises(BadCursor):
        cursors.decode(cursor, {"a": 1})


def place(reads: Engine, id_: str) -> tuple[UUID, int]:
    (row,) = events(reads, Search("acme", id=id_), None, 5).rows
    return UUID(row["chain"]), row["seq"]


def test_one_event_is_shown_without_its_body_which_is_revealed_by_itself(reads, filled) -> None:
    chain, seq = place(reads, "evt-019")
    found = event(reads, "acme", chain, seq)
    settings = Settings(database_url=filled.url)

    assert found is not None
    assert ("evt-019", "order-7", 1, 2, 4) == tuple(found[name] for name in ("id", "subject", "seq", "size", "head"))
    assert ["billing", "stock"] == [each["endpoint"] for each in found["deliveries"]]
    assert "{}" not in str(found["attributes"])
    assert not {"body", "body_base64"} & found.keys()
    assert (b"{}", "application/json") == content(reads, settings, "acme", chain, seq)
    for tenant, where, number in (("zoo", chain, seq), ("acme", chain, 99), ("acme", UUID(int=0), 0)):
        assert event(reads, tenant, where, number) is None
        assert content(reads, settings, tenant, where, number) is None


def test_one_box_finds_what_has_an_id_and_only_the_tenants_own(reads, filled) -> None:
    chain, seq = place(reads, "evt-001")

    assert [("event", "acme", seq)] == [
        (each["kind"], each["tenant"], each["seq"]) for each in locate(reads, "acme", "evt-001")
    ]
    assert ["acme", "zoo"] == sorted(each["tenant"] for each in locate(reads, None, "evt-001"))
    for text in (chain.hex, str(chain).upper()):
        assert [("chain", "order-1")] == [(each["kind"], each["subject"]) for each in locate(reads, "acme", f" {text} ")]
        assert [] == locate(reads, "zoo", text)
    filled.run(
        "WITH act AS (INSERT INTO audit (at, who, act, filter, count) VALUES (now(), 'kim', 'verify', '{}', 0) RETURNING id)"
        " INSERT INTO job (kind, tenant, arguments, who, audit) SELECT 'verify', 'acme', '{}', 'kim', id FROM act"
    )
    assert ["delivery", "job"] == [each["kind"] for each in locate(reads, "acme", "1")]
    assert [] == locate(reads, "zoo", "1")
    for text in ("", "0", "evt-00", "9" * 18, "9" * 40, "٣", "x" * 600):
        assert [] == locate(reads, None, text)


def all_deliveries(reads: Engine, limit: int = 7, **wanted: Any) -> list[int]:
    found, cursor = [], None
    while True:
        page: Found = deliveries(reads, "acme", **{"state": None, "endpoint": None, **wanted}, cursor=cursor, limit=limit)
        found += [row["id"] for row in page.rows]
        if (cursor := page.next) is None:
            return found


@pytest.fixture(scope="module")
def settled(filled) -> dict[str, list[int]]:
    """The deliveries by state, of which each tenth is in one of the six."""
    by_state = {
        "delivered": "next_attempt_at = NULL, settled_at = now()",
        "dead": "next_attempt_at = NULL, settled_at = now()",
        "discarded": "next_attempt_at = NULL, settled_at = now()",
        "paused": "next_attempt_at = NULL",
        "leased": "next_attempt_at = NULL, lease = gen_random_uuid(), lease_until = now()",
    }
    for n, (state, changes) in enumerate(by_state.items()):
        filled.run(f"UPDATE delivery SET state = '{state}', {changes} WHERE mod(id, 10) = {n}")
    found: dict[str, list[int]] = {}
    for id_, state in filled.rows("SELECT id, state FROM delivery ORDER BY id DESC"):
        found.setdefault(state, []).append(id_)
    return found


@pytest.mark.parametrize("state", ["pending", "leased", "delivered", "dead", "paused", "discarded"])
@pytest.mark.parametrize("most", [None, 3])
def test_deliveries_are_listed_by_state_and_endpoint_however_few_are_looked_at(
    reads, settled, state, most, monkeypatch
) -> None:
    if most is not None:
        monkeypatch.setattr(delivery_pages, "MOST_SCANNED", most)
        monkeypatch.setattr(delivery_pages, "LEAST_OF_EACH", most)
        monkeypatch.setattr(delivery_pages, "FEW", most)

    assert settled[state] == all_deliveries(reads, state=state)
    assert [id_ for id_ in settled[state] if id_ % 2] == all_deliveries(reads, 2, state=state, endpoint="billing")


def test_all_deliveries_are_listed_newest_first(reads, settled) -> None:
    every = sorted((id_ for found in settled.values() for id_ in found), reverse=True)

    assert every == all_deliveries(reads)
    assert [id_ for id_ in every if not id_ % 2] == all_deliveries(reads, endpoint="stock")
    assert [] == deliveries(reads, "zoo", state=None, endpoint=None, cursor=None, limit=5).rows


def test_a_delivery_is_its_tenants_only_and_names_that_do_not_exist_are_told(reads, settled) -> None:
    found = delivery(reads, "acme", 1)
    assert found is not None
    assert ("billing", "evt-000", "order.shipped", []) == tuple(
        found[name] for name in ("endpoint", "event_id", "type", "tries")
    )
    assert delivery(reads, "zoo", 1) is None
    assert answers(reads, "zoo", 1) is None
    assert [] == answers(reads, "acme", 1)
    for wrong in ({"endpoint": "nowhere"}, {"state": "lost"}):
        with pytest.raises(OpsError, match=r"there is no|has no endpoint"):
            all_deliveries(reads, **wrong)
    with pytest.raises(OpsError, match="no tenant"):
        deliveries(reads, "nobody", state=None, endpoint=None, cursor=None, limit=5)
