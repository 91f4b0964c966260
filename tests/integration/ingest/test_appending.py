"""Dedupe, chain and append on a real Postgres, with the rights of a worker."""

import itertools
import multiprocessing
import os
import random
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from ops.runtime.db import UNIQUE_VIOLATION, make_engine, passes, sqlstate, transaction
from pipeline.admit import admit
from pipeline.append import Appended, append, open_batch
from pipeline.chain import entry_hash, envelope
from pipeline.fanout import subscriptions
from pipeline.ledger.verifying.verify import verify
from pipeline.store.array_literals import octets, plain, quoted
from pipeline.store.deliveries import append_few
from pipeline.store.ledger.scan import Scope
from schemas.blob import LARGEST_INLINE, name
from schemas.catalog import Catalog
from schemas.endpoint import Endpoint
from schemas.event import Event
from schemas.ledger.fault import Fault
from schemas.message import Message
from schemas.source import Source
from support.net.round_trips import counting
from support.sessions import waits_for_lock
from support.waiting import wait_for

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CATALOG = Catalog(
    1,
    {"acme": b"k" * 32, "other": b"o" * 32},
    {
        ("acme", "orders"): Source("acme", "orders", "amqp"),
        ("acme", "shop"): Source("acme", "shop", "amqp"),
        ("other", "orders"): Source("other", "orders", "amqp"),
    },
    {1: Endpoint(1, "acme", "billing", "http://127.0.0.1/", filter={"prefix": {"type": "order."}})},
)


def event(
    id: str, subject: str = "order-1", body: bytes = b"{}", source: str = "acme.orders", type: str = "order.paid"
) -> Event:
    message = Message(source, body, "application/json", None, {"subject": subject}, id, type)
    return admit(message, CATALOG, NOW)[0]


def record(engine: Engine, *events: Event) -> Appended:
    with transaction(engine) as conn:
        return append(conn, events, subscriptions(CATALOG), NOW)


def race(url: str, worker: int, count: int, subject: str, failures: "multiprocessing.Queue[str]") -> None:
    """Run by each racing process: appends small batches to one chain, and tries again when it loses a race."""
    engine = make_engine(url, pool_size=1)
    pending = [event(f"{subject}-{worker}-{n}", subject) for n in range(count)]
    while pending:
        size = random.randint(1, 7)
        try:
            record(engine, *pending[:size])
            pending = pending[size:]
        except (DBAPIError, psycopg.Error) as error:
            if not passes(error):
                failures.put(str(error))
                return


def test_eight_processes_racing_on_one_chain_append_800_of_800_without_a_gap(database, engine) -> None:
    record(engine, event("before", "there"))
    engine.dispose()
    context = multiprocessing.get_context("fork")  # importing everything eight times would take ten seconds
    failures = context.Queue()
    for subject, beforehand, each in (("new", 0, 100), ("there", 1, 25)):
        database.close()  # a forked process must not find connections of this one
        racers = [
            context.Process(target=race, args=(database.worker_url, n, each, subject, failures), daemon=True) for n in range(8)
        ]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join(120)

        assert [0] * 8 == [racer.exitcode for racer in racers]
        assert failures.empty()
        seqs = [
            seq
            for (seq,) in database.rows(
                "SELECT seq FROM entry WHERE chain_id = (SELECT chain_id FROM chain WHERE subject = %s) ORDER BY seq", subject
            )
        ]
        assert list(range(8 * each + beforehand)) == seqs
        assert [(8 * each + beforehand - 1,)] == database.rows("SELECT seq FROM chain WHERE subject = %s", subject)


def test_batches_that_make_the_same_chains_in_opposite_order_do_not_deadlock(database, engine) -> None:
    subjects = [f"s-{n}" for n in range(40)]
    errors: list[Exception] = []

    def run(worker: int, order: list[str]) -> None:
        try:
            record(engine, *[event(f"{worker}-{subject}", subject) for subject in order])
        except (DBAPIError, psycopg.Error) as error:
            errors.append(error)

    for turn in range(5):
        names = [f"{turn}-{subject}" for subject in subjects]
        threads = [threading.Thread(target=run, args=(n, names if n % 2 else names[::-1])) for n in (turn * 10, turn * 10 + 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert [] == errors
    assert [(400,)] == database.rows("SELECT count(*) FROM entry")


def test_the_same_batch_twice_is_recorded_once(database, engine) -> None:
    batch = [event(f"e-{n}", f"s-{n % 3}") for n in range(10)]

    first, second = record(engine, *batch), record(engine, *batch)

    assert (10, 0, 10) == (len(first.entries), first.duplicates, first.planned)
    assert (0, 10, 0) == (len(second.entries), second.duplicates, second.planned)
    assert [(10,)] == database.rows("SELECT count(*) FROM entry")
    assert [(10,)] == database.rows("SELECT count(*) FROM delivery")


def test_a_duplicate_in_the_same_batch_is_appended_once_and_the_first_one_counts(database, engine) -> None:
    appended = record(engine, event("same", body=b"first"), event("other"), event("same", body=b"second"))

    assert (2, 1) == (len(appended.entries), appended.duplicates)
    assert [(b"first",), (b"{}",)] == database.rows("SELECT body FROM content ORDER BY seq")


def test_the_same_id_from_another_source_or_tenant_is_another_event(database, engine) -> None:
    appended = record(engine, event("e-1"), event("e-1", source="acme.shop"), event("e-1", source="other.orders"))

    assert (3, 0) == (len(appended.entries), appended.duplicates)


def from_origin(origin: str, body: bytes = b"{}", catalog: Catalog = CATALOG) -> Event:
    headers = {"cloudEvents:id": "e-1", "cloudEvents:source": origin, "cloudEvents:type": "t", "cloudEvents:subject": "s"}
    return admit(Message("acme.orders", body, headers=headers), catalog, NOW)[0]


def test_the_same_id_from_another_origin_is_another_event(database, engine) -> None:
    appended = record(engine, event("e-1"), from_origin("/one"), from_origin("/two"), from_origin("/one"))
    again = record(engine, event("e-1"), from_origin("/one"), from_origin("/two"))

    assert (3, 1, 0, 3) == (len(appended.entries), appended.duplicates, len(again.entries), again.duplicates)
    assert ([], []) == (list(appended.conflicts), list(again.conflicts))


def test_what_was_recorded_before_an_origin_counted_is_not_recorded_again(database, engine) -> None:
    upgraded = replace(CATALOG, before_origins=frozenset({"acme"}))
    old = from_origin("/one", catalog=upgraded)
    assert old.former is not None
    record(engine, replace(old, fingerprint=old.former))

    same, other = record(engine, old), record(engine, from_origin("/two", catalog=upgraded))
    altered = record(engine, from_origin("/one", b"other", upgraded))

    assert (0, 1) == (len(same.entries), same.duplicates)
    assert (1, 0) == (len(other.entries), other.duplicates)
    assert ([], [["body"]]) == (list(other.conflicts), [each.differs for each in altered.conflicts])
    with engine.connect() as conn:
        faults: list[Fault] = []
        verified = verify(conn, Scope(), CATALOG.tenants, lambda *_: b"", faults.append)
    assert ([], 2) == (faults, verified.entries)


@pytest.mark.parametrize("size", [10, LARGEST_INLINE + 1], ids=["in its row", "in the blob store"])
def test_a_duplicate_of_other_content_is_told_with_both_digests(database, engine, size) -> None:
    def sized(letter: bytes) -> Event:
        body = letter * size
        return replace(event("e-1", body=body), blob=name(body).reference if size > LARGEST_INLINE else None)

    record(engine, sized(b"x"))
    same, other = record(engine, sized(b"x")), record(engine, sized(b"y"))

    assert [] == list(same.conflicts)
    (conflict,) = other.conflicts
    assert (["body"], sha256(b"x" * size).digest(), sha256(b"y" * size).digest()) == (
        conflict.differs,
        conflict.recorded.body,
        conflict.arrived.body,
    )


def test_of_a_duplicate_whose_content_is_gone_nothing_is_told(database, engine) -> None:
    record(engine, event("e-1"))
    with database.connect() as owner:
        owner.execute("DELETE FROM content")

    again = record(engine, event("e-1", body=b"other"))

    assert (1, []) == (again.duplicates, list(again.conflicts))


def test_the_same_subject_of_two_tenants_is_two_chains(database, engine) -> None:
    record(engine, event("e-1"), event("e-2", source="other.orders"))

    assert [("acme", 0), ("other", 0)] == database.rows("SELECT tenant, seq FROM entry ORDER BY tenant")


def test_a_late_commit_of_the_same_event_makes_the_second_writer_fail_and_then_find_a_duplicate(database, engine) -> None:
    late = engine.connect()
    append(late, [event("e-1")], subscriptions(CATALOG), NOW)
    outcome: list[Appended | Exception] = []

    def second() -> None:
        try:
            outcome.append(record(engine, event("e-1")))
        except (DBAPIError, psycopg.Error) as error:
            outcome.append(error)
            outcome.append(record(engine, event("e-1")))

    thread = threading.Thread(target=second)
    thread.start()
    wait_for(lambda: waits_for_lock(database))  # of the first one's head
    late.commit()
    thread.join(60)
    late.close()

    assert isinstance(outcome[0], Exception)
    assert UNIQUE_VIOLATION == sqlstate(outcome[0])
    assert isinstance(outcome[1], Appended)
    assert (0, 1) == (len(outcome[1].entries), outcome[1].duplicates)
    assert [(0,)] == database.rows("SELECT seq FROM entry")


def test_a_small_batch_on_known_chains_takes_two_round_trips_and_commit(database) -> None:
    trips: list[str] = []
    engine = make_engine(database.worker_url, pool_size=1, connections=counting(trips))
    record(engine, event("e-1"), event("e-2", "order-2"))
    batch = [event("e-3"), event("e-4", "order-2")]
    trips.clear()
    with transaction(engine) as conn:
        opened = open_batch(conn, batch, {each.chain_key for each in batch})
        appended = append(conn, batch, subscriptions(CATALOG), NOW, opened)
    engine.dispose()

    assert (2, 2) == (len(appended.entries), appended.planned)
    assert 3 == len(trips)


def test_a_chain_that_was_known_and_is_not_there_is_made(database, engine) -> None:
    with transaction(engine) as conn:
        opened = open_batch(conn, [event("e-1")], {event("e-1").chain_key})
        appended = append(conn, [event("e-1")], subscriptions(CATALOG), NOW, opened)

    assert 1 == len(appended.entries)


def test_few_entries_and_many_become_the_same_rows(database, engine) -> None:
    def rows(subject: str) -> list[tuple]:
        return database.rows(
            "SELECT seq, convert_from(body, 'UTF8'), blob, source, type, time, endpoint_id, delivery.tenant, size, state,"
            " created_at, next_attempt_at, ordered, entry.tenant FROM content JOIN entry USING (chain_id, seq)"
            f" LEFT JOIN delivery USING (chain_id, seq) WHERE subject = '{subject}' ORDER BY seq"
        )

    types = ["order.paid", "other"]
    many = append_few.MOST + 1
    record(engine, *(event(f"m-{n}", "many", f"{n}".encode(), type=types[n % 2]) for n in range(many)))
    for n in range(many):
        record(engine, event(f"f-{n}", "few", f"{n}".encode(), type=types[n % 2]))

    assert many == len(rows("many"))
    assert rows("many") == rows("few")


def test_far_from_postgres_many_entries_take_as_few_round_trips_as_few(database, monkeypatch) -> None:
    trips: list[str] = []
    engine = make_engine(database.worker_url, connections=counting(trips))
    counts = {}
    for away in (0.0, 0.1):
        events = [event(f"{away}-{number}", "many") for number in range(append_few.MOST + 1)]
        with transaction(engine) as conn:
            opened = open_batch(conn, events, {events[0].chain_key} if away else ())
            trips.clear()
            append(conn, events, subscriptions(CATALOG), NOW, opened, round_trip=away)
            counts[away] = len(trips)
    engine.dispose()

    assert 2 * (append_few.MOST + 1) == database.rows("SELECT count(*) FROM entry")[0][0]
    assert counts[0.0] > counts[0.1]
    assert 1 == counts[0.1]


def test_postgres_reads_array_literals_as_they_were_meant(engine) -> None:
    texts = ["", "NULL", 'a "b" \\c\\', "{1,2}", " x ", "ä\n€\t", "'", "%s", None]
    times = [NOW, datetime(1, 1, 1, 12, tzinfo=UTC), datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))]
    raw = [bytes(range(256)), b"", None]
    with transaction(engine) as conn:
        statement = text("SELECT CAST(:a AS text[]), CAST(:b AS bytea[]), CAST(:c AS bigint[]), CAST(:d AS boolean[])")
        given = {"a": quoted(texts), "b": octets(raw), "c": plain([1, -(2**63)]), "d": plain([True, False])}
        assert (texts, raw, [1, -(2**63)], [True, False]) == tuple(conn.execute(statement, given).one())
        (same,) = conn.execute(text("SELECT CAST(:a AS timestamptz[]) = :b"), {"a": quoted(times), "b": times}).one()
        assert same


def test_a_rolled_back_batch_leaves_nothing_behind(database, engine) -> None:
    conn = engine.connect()
    append(conn, [event("e-1")], subscriptions(CATALOG), NOW)
    conn.rollback()
    conn.close()

    assert [(0, 0, 0, 0)] == database.rows(
        "SELECT (SELECT count(*) FROM chain), (SELECT count(*) FROM entry), (SELECT count(*) FROM content),"
        " (SELECT count(*) FROM delivery)"
    )


def test_only_endpoints_whose_filter_matches_get_a_delivery(database, engine) -> None:
    appended = record(engine, event("e-1", type="order.paid"), event("e-2", type="stock.low"))

    assert 1 == appended.planned
    assert [(1, "pending", NOW)] == database.rows("SELECT endpoint_id, state, next_attempt_at FROM delivery")


@pytest.mark.parametrize(
    "body",
    [
        b'{"amount": 1.10}',
        b'{"id": 9007199254740993}',
        b'{"a": 1, "a": 2}',
        b'{"nul": "\\u0000"}',
        b"raw \x00 NUL",
        b'{"lone": "\\ud800"}',
        b"\xed\xa0\x80",
        b"\xff\xfe",
        b"",
        os.urandom(100_000),
    ],
    ids=[
        "1.10",
        "2^53+1",
        "duplicate keys",
        "NUL escape",
        "NUL",
        "lone surrogate escape",
        "lone surrogate",
        "no UTF-8",
        "empty",
        "random",
    ],
)
def test_a_body_comes_back_to_the_byte(database, engine, body) -> None:
    record(engine, event("e-1", body=body))

    assert [(body,)] == database.rows("SELECT body FROM content")


def test_a_large_body_is_compressed_by_the_cheap_method(database, engine) -> None:
    body = b'{"currency": "EUR", "amount": 12}' * 100

    record(engine, event("e-1", body=body))

    ((methods,),) = database.rows("SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression'")
    assert [(body, "lz4" if "lz4" in methods else "pglz")] == database.rows(
        "SELECT body, pg_column_compression(body) FROM content"
    )


def forge(conn: psycopg.Connection, seq: int, prev_hash: bytes | None, hash: bytes | None = None) -> None:
    """Inserts an entry after the only one, as a second writer with a bug would."""
    ((chain_id,),) = conn.execute("SELECT chain_id FROM entry").fetchall()
    sealed = entry_hash(envelope(chain_id.hex, seq, prev_hash, "acme", 1, "event", b"p" * 32))
    conn.execute(
        "INSERT INTO entry (chain_id, seq, prev_hash, hash, tenant, at, kind, pc)"
        " VALUES (%s, %s, %s, %s, 'acme', 1, 'event', %s)",
        (chain_id, seq, prev_hash, hash or sealed, b"p" * 32),
    )


def test_postgres_itself_refuses_a_wrong_hash_a_broken_link_a_gap_and_a_fork(database, engine) -> None:
    head = record(engine, event("e-1")).entries[0].hash

    with database.connect() as owner:
        with pytest.raises(psycopg.errors.CheckViolation, match="entry_hash"):
            forge(owner, 1, head, hash=b"h" * 32)
        with pytest.raises(psycopg.errors.ForeignKeyViolation, match="entry_link"):
            forge(owner, 1, b"h" * 32)
        with pytest.raises(psycopg.errors.ForeignKeyViolation, match="entry_link"):
            forge(owner, 2, head)
        with pytest.raises(psycopg.errors.UniqueViolation, match="entry_pkey"):
            forge(owner, 0, None)
        with pytest.raises(psycopg.errors.CheckViolation, match="entry_first"):
            forge(owner, 1, None)
        forge(owner, 1, head)

    assert [(0,), (1,)] == database.rows("SELECT seq FROM entry ORDER BY seq")


@pytest.mark.parametrize("statement", ["UPDATE entry SET tenant = 'x'", "DELETE FROM entry", "TRUNCATE entry"])
@pytest.mark.parametrize("role", ["origin", "replica"])
def test_even_the_superuser_is_refused(database, engine, statement, role) -> None:
    record(engine, event("e-1"))

    with database.connect() as owner, pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="append-only"):
        owner.execute(f"SET session_replication_role = {role}")
        owner.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entry SET tenant = 'x'",
        "DELETE FROM entry",
        "TRUNCATE entry",
        "UPDATE content SET body = 'x'",
        "DELETE FROM content",
        "DELETE FROM delivery",
        "DELETE FROM dead_letter",
        "DELETE FROM chain",
        "UPDATE source SET kind = 'none'",
        "UPDATE endpoint SET url = 'http://elsewhere/'",
        "INSERT INTO tenant (name, fingerprint_key) VALUES ('x', 'y')",
        "UPDATE delivery SET chain_id = gen_random_uuid()",
        "UPDATE chain SET subject = 'x'",
        "UPDATE chain SET chain_id = gen_random_uuid()",
        "UPDATE dead_letter SET body = 'x'",
        "UPDATE dead_letter SET headers = '{}'",
        "UPDATE dead_letter SET reason = 'x'",
        "LOCK TABLE entry IN ACCESS EXCLUSIVE MODE",
        "LOCK TABLE entry IN SHARE MODE",
        "LOCK TABLE content IN ACCESS EXCLUSIVE MODE",
        "LOCK TABLE chain IN ACCESS EXCLUSIVE MODE",
        "LOCK TABLE delivery IN ACCESS EXCLUSIVE MODE",
        "LOCK TABLE dead_letter IN ACCESS EXCLUSIVE MODE",
        "LOCK TABLE attempt IN ACCESS EXCLUSIVE MODE",
        "LOCK TABLE catalog IN ACCESS EXCLUSIVE MODE",
        "LOCK TABLE endpoint_health IN ACCESS EXCLUSIVE MODE",
        "LOCK TABLE mail_document IN ACCESS EXCLUSIVE MODE",
        "CREATE TABLE mine ()",
        "ALTER TABLE entry DISABLE TRIGGER ALL",
    ],
)
def test_a_worker_has_no_right_to(database, engine, statement) -> None:
    with psycopg.connect(database.worker_url) as worker, pytest.raises(psycopg.errors.InsufficientPrivilege):
        worker.execute(statement)


def test_the_look_up_of_fingerprints_takes_the_index_of_a_table_that_was_never_analysed(database, engine) -> None:
    ids = itertools.count()
    for _ in range(5):
        record(engine, *[event(f"e-{next(ids)}", f"s-{n % 50}") for n in range(1000)])
    with database.connect() as owner:  # autovacuum may have analysed it meanwhile
        owner.execute("DELETE FROM pg_statistic WHERE starelid = 'entry'::regclass")
    keys = "{" + ",".join(event(f"e-{n}").fingerprint.hex() for n in range(20)) + "}"

    plan = "\n".join(
        line
        for (line,) in database.rows(
            "EXPLAIN SELECT uuid_send(fingerprint) FROM entry WHERE fingerprint = ANY(CAST(%s AS uuid[]))", keys
        )
    )

    assert "entry_fingerprint_key" in plan
