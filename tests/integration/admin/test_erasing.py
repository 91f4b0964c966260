"""Erasing: content and all that was copied from it goes, with an entry that says so, or nothing goes."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy import event as hooks
from sqlalchemy.exc import DBAPIError

from ops.admin.bulk import Pace
from ops.admin.erasure.erase_subject import Wanted, carry_out, plan
from ops.admin.erasure.erased_blobs import AGE, sweep
from ops.admin.replay import decision_on, replay
from ops.runtime.blobs import Blobs
from ops.runtime.db import make_engine, transaction
from ops.settings import Settings
from pipeline.append import append, append_own
from pipeline.chain import commitment
from pipeline.deliver import judge
from pipeline.ledger import erase as rule
from pipeline.ledger.erase import Order
from pipeline.ledger.erasures import read_erasure
from pipeline.ledger.verifying.verify import verify, verify_new
from pipeline.settle import Tried
from pipeline.store.dead_letters import dead_letters, decisions
from pipeline.store.ledger import erasure, points
from pipeline.store.ledger.scan import Scope
from schemas.dead_letter import DeadLetter, DeadLetterFilter
from schemas.delivery import Receipt
from schemas.endpoint import Endpoint
from schemas.event import Event
from schemas.ledger.fault import Fault
from support.blobs import NO_BLOBS
from support.cli import Cli
from support.deliveries import claimed, event, record
from support.ledger.tampering import UNPROTECTED, run
from support.waiting import wait_for
from workers.delivery.store import DeliveryStore

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ORDER = Order("dpo@acme.example", "request 17")
TERMS = ("--reason", "request 17", "--by", "dpo@acme.example")
ENDPOINT = Endpoint(1, "acme", "billing", "http://127.0.0.1:1/")


@pytest.fixture(autouse=True)
def _configured(database) -> None:
    database.add_tenant()
    database.add_source("orders", "amqp")
    database.add_endpoint("billing", "http://127.0.0.1:1/")


@pytest.fixture
def eraser_cli(cli: Cli, database) -> Cli:
    return cli.but(database_url=database.eraser_url)


@pytest.fixture
def erase(eraser: Engine, database) -> Callable[..., Any]:
    """Erases `subject` in batches of `chunk`."""

    def run(subject: str = "order-1", chunk: int = 500, **wanted: Any) -> Any:
        settings = Settings(database_url=database.eraser_url, keys=database.key)
        planned = plan(eraser, settings, Wanted("acme", subject, **wanted))
        pace = Pace(4.0 * chunk, sleep=lambda _seconds: None)
        return carry_out(eraser, planned, ORDER, pace, lambda _done: None)

    return run


def contents(database) -> list[int]:
    """The numbers of events that have content."""
    return [seq for (seq,) in database.rows("SELECT seq FROM content WHERE type = 'order.paid' ORDER BY chain_id, seq")]


def erasures(database) -> list[tuple[int, dict[str, Any]]]:
    rows = database.rows("SELECT seq, body FROM entry JOIN content USING (chain_id, seq) WHERE kind = 'erasure' ORDER BY 1")
    return [(seq, json.loads(body)) for seq, body in rows]


def settle_first(engine: Engine, receipt: Receipt) -> int:
    """Claims one delivery and settles it; returns its id."""
    lease, (claim,) = claimed(engine, 1)
    store = DeliveryStore(engine, 90)
    (delivery,) = store.load([(claim.id, lease)])
    settlement = judge(delivery, Endpoint(1, "acme", "billing", "http://127.0.0.1:1/", retry=()), receipt, datetime.now(UTC), 0)
    store.settle([Tried(delivery, settlement)])
    return claim.id


def test_erases_content_and_every_copy_in_the_transaction_of_an_entry_that_says_so(database, engine, eraser_cli) -> None:
    record(engine, [event("a", body=b'"secret 1"'), event("b"), event("c")])
    now = datetime.now(UTC)
    delivered = settle_first(engine, Receipt(now, 0.1, 200, response=b"thanks, Ann"))
    dead = settle_first(engine, Receipt(now, 0.1, 500, "status", "Ann is unknown", response=b"no Ann here"))
    with transaction(engine) as conn:
        letter = DeadLetter("append", "poison", "Ann", "acme", "orders", event_id="a", body=b'"secret 1"')
        dead_letters.bury(conn, [letter, DeadLetter("append", "poison", "other", "acme", "orders", event_id="z")], now)

    shown = eraser_cli.json("erase", "acme", "order-1", *TERMS)
    assert [0, 1, 2] == contents(database)
    told = eraser_cli.json("erase", "acme", "order-1", *TERMS, "--yes")

    assert {"entries": 3, "deliveries": {"dead": 1, "pending": 1}}.items() <= shown[0]["would_erase"].items()
    assert {"entries": 3, "letters": 2, "discarded": 2}.items() <= told[-1]["erased"].items()
    assert [] == contents(database)
    ((seq, body),) = erasures(database)
    assert (3, {"by": ORDER.by, "reason": ORDER.reason, "seqs": [[0, 2]], "subject": False}) == (seq, body)
    ((attributes, raw, salt, pc, chain),) = database.rows(
        "SELECT attributes, body, salt, pc, chain_id FROM entry JOIN content USING (chain_id, seq) WHERE seq = 3"
    )
    assert commitment(salt, attributes, raw) == pc
    assert read_erasure(raw, 3).spans == [(0, 2)]
    facts = json.loads(attributes)
    assert facts.keys() == {"id", "source", "specversion", "type", "subject", "time", "datacontenttype"}
    assert ("waxseal", "waxseal.erasure", chain.hex) == (facts["source"], facts["type"], facts["subject"])
    assert [(delivered, "delivered", None), (dead, "discarded", "its content was erased by entry 3")] == database.rows(
        "SELECT id, state, error FROM delivery WHERE id = ANY(%s) ORDER BY id", [delivered, dead]
    )
    assert [(None, None)] == database.rows("SELECT DISTINCT response, detail FROM attempt")
    assert [("append", "open", "other"), ("deliver", "discarded", "erased with its entry")] == database.rows(
        "SELECT stage, state, detail FROM dead_letter ORDER BY stage"
    )
    assert [("dpo@acme.example", "erase", 3)] * 2 == database.rows("SELECT who, act, count FROM audit")
    assert "order-1" not in str(database.rows("SELECT filter FROM audit"))


def test_erasing_twice_is_harmless_and_says_so(database, engine, eraser_cli) -> None:
    record(engine, [event("a"), event("b")])
    eraser_cli.output("erase", "acme", "order-1", "--seq", "0", *TERMS, "--yes")

    assert "entry 2 erased some: request 17, dpo@acme.example" in eraser_cli.output("erase", "acme", "order-1", *TERMS)
    eraser_cli.output("erase", "acme", "order-1", *TERMS, "--yes")
    assert "nothing to erase: all of it was erased before" in eraser_cli.output("erase", "acme", "order-1", *TERMS, "--yes")
    assert [[[0, 0]], [[1, 1]]] == [body["seqs"] for _seq, body in erasures(database)]


def test_the_timeline_says_which_entry_erased_it(engine, eraser_cli, cli) -> None:
    record(engine, [event("a"), event("b")])
    eraser_cli.output("erase", "acme", "order-1", "--seq", "1", *TERMS, "--yes")

    first, second, third = cli.json("timeline", "acme", "order-1")
    assert ("{}", None) == (first["body"], first["erased"])
    assert {"by_entry": 2, "reason": "request 17", "by": "dpo@acme.example"}.items() <= second["erased"].items()
    assert ("erasure", None) == (third["kind"], third["erased"])
    assert "(erased by entry 2: request 17, dpo@acme.example, 20" in cli.output("timeline", "acme", "order-1")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("acme", "order-2"), "nothing recorded of that subject"),
        (("acne", "order-1"), "there is no tenant 'acne'"),
        (("acme", "order-1", "--seq", "0,9"), "there is no entry 9: the subject's entries are 0 to 2"),
        (("acme", "order-1", "--seq", "1", "2"), "entry 2 is of kind erasure, which is Waxseal's own record"),
        (("acme", "order-1", "--seq", "x"), "'x' is no number of an entry"),
        (("acme", "order-1", "--seq", "1", "--subject-name"), "--subject-name goes with the whole subject"),
        (("acme", "order", "1"), "numbers of entries need --seq before them"),
        (("acme", "order-1", "--dry-run", "--yes"), "--dry-run or --yes, not both"),
        (("acme", "order-1", "--reason", "Order-1 asked"), "must not name the subject"),
        (("acme", "order-1", "--by", " "), "--by is empty"),
    ],
)
def test_errors_say_what_to_do(database, engine, eraser_cli, arguments, why) -> None:
    record(engine, [event("a"), event("b")])
    eraser_cli.output("erase", "acme", "order-1", "--seq", "0", *TERMS, "--yes")

    assert why in eraser_cli.output("erase", *TERMS, *arguments, code=2)
    assert [1] == contents(database)


def test_without_keys_nothing_can_be_erased(engine, eraser_cli) -> None:
    record(engine, [event("a")])

    assert "set WAXSEAL_KEYS" in eraser_cli.but(keys="").output("erase", "acme", "order-1", *TERMS, code=2)


def test_the_name_of_a_subject_goes_from_every_table_and_its_chain_goes_on(database, engine, eraser_cli, cli) -> None:
    name = "ann@customer.example"
    record(engine, [event("a", name, b'"of ann@customer.example"'), event("b", name)])
    record(engine, [event("c", "order-1")])
    settle_first(engine, Receipt(datetime.now(UTC), 0.1, 550, "refused", f"550 {name} unknown"))

    eraser_cli.output("erase", "acme", name, *TERMS, "--subject-name", "--yes")

    assert [] == mentions(database, name)
    assert [(None,), ("order-1",)] == database.rows("SELECT subject FROM chain ORDER BY subject NULLS FIRST")
    assert [True] == [body["subject"] for _seq, body in erasures(database)]
    assert "nothing to erase" in eraser_cli.output("erase", "acme", name, *TERMS, "--subject-name", "--yes")
    record(engine, [event("d", name)])
    assert [0, 1, 2, 3] == [entry["seq"] for entry in cli.json("timeline", "acme", name)]
    assert 2 == database.rows("SELECT count(*) FROM chain")[0][0]


def test_a_chain_whose_subjects_name_was_erased_is_verified_like_any_other(database, engine, erase) -> None:
    name = "ann@customer.example"
    record(engine, [event("a", name), event("b", name), event("c", "order-1")])
    erase(name, name=True)
    ((key,),) = database.rows("SELECT fingerprint_key FROM tenant")
    keys = {"acme": database.vault.decrypt(bytes(key))}
    erased = "chain_id = (SELECT chain_id FROM chain WHERE subject IS NULL)"
    owner = make_engine(database.url)

    def kinds(*edits: str) -> set[str]:
        faults: list[Fault] = []
        with owner.connect() as conn:
            run(conn, UNPROTECTED)
            for edit in edits:
                assert run(conn, edit), edit
            verify(conn, Scope(), keys, NO_BLOBS.get, faults.append)
            conn.rollback()
        return {fault.kind for fault in faults}

    columns = "attributes, body, salt, source, type, subject, time"
    back = f"INSERT INTO content (chain_id, seq, {columns}) SELECT chain_id, 0, {columns} FROM content"
    head = f"(SELECT hash FROM entry WHERE {erased} AND seq = 1)"
    last = [f"DELETE FROM {table} WHERE {erased} AND seq = 2" for table in ("entry", "content")]
    found = {
        "nothing": kinds(),
        "an entry": kinds(f"UPDATE entry SET at = at + 1 WHERE {erased} AND seq = 0"),
        "an entry is gone": kinds(f"DELETE FROM entry WHERE {erased} AND seq = 1"),
        "a name is put there": kinds(f"UPDATE chain SET subject = 'bob' WHERE {erased}"),
        "the erasure's body": kinds(f"UPDATE content SET body = '{{}}' WHERE {erased} AND seq = 2"),
        "the erasure is cut off": kinds(f"UPDATE chain SET seq = 1, hash = {head} WHERE {erased}", *last),
        "another's name is gone": kinds("UPDATE chain SET subject = NULL WHERE subject = 'order-1'"),
        "content is put back": kinds(f"{back} WHERE {erased} AND seq = 2"),
    }

    def kinds_of_new() -> set[str]:
        faults: list[Fault] = []
        reached: list[points.Reached] = []
        with transaction(owner) as conn:
            verify_new(conn, keys, NO_BLOBS.get, faults.append, reached.append)
            points.keep(conn, reached, datetime.now(UTC))
        return {fault.kind for fault in faults}

    found["it is new"] = kinds_of_new()
    record(engine, [event("d", name)])
    found["it goes on"] = kinds()
    found["what is new of it"] = kinds_of_new()
    found["its key"] = kinds(f"UPDATE chain SET key = gen_random_uuid() WHERE {erased}")
    owner.dispose()

    assert {
        "nothing": set(),
        "it is new": set(),
        "it goes on": set(),
        "what is new of it": set(),
        "its key": {"chain_row"},
        "an entry": {"column"},
        "an entry is gone": {"gap"},
        "a name is put there": {"chain_row"},
        "the erasure's body": {"content_altered", "content_missing", "chain_row"},
        "the erasure is cut off": {"content_missing", "chain_row"},
        "another's name is gone": {"chain_row"},
        "content is put back": {"content_erased", "content_altered"},
    } == found


def test_a_name_goes_later_than_the_content(database, engine, erase) -> None:
    record(engine, [event("a")])
    erase()

    erase(name=True)

    assert [([[0, 0]], False), ([], True)] == [(body["seqs"], body["subject"]) for _seq, body in erasures(database)]
    assert [(None,)] == database.rows("SELECT subject FROM chain")


def mentions(database, name: str) -> list[str]:
    """The tables in which the name stands, in any column."""
    tables = database.rows(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    )
    found = "SELECT 1 FROM {} AS t WHERE strpos(t::text, %s) > 0 OR strpos(t::text, %s) > 0 LIMIT 1"
    return [table for (table,) in tables if database.rows(found.format(table), name, name.encode().hex())]


def test_many_entries_go_in_batches_and_what_comes_meanwhile_stays(database, engine, erase) -> None:
    record(engine, [event(f"e{n}") for n in range(25)])

    erased = erase(chunk=10)

    assert 25 == erased.entries
    assert [(25, [[0, 9]]), (26, [[10, 19]]), (27, [[20, 24]])] == [(seq, body["seqs"]) for seq, body in erasures(database)]


class Killed(BaseException):
    """The process ended here."""


def test_killed_at_any_statement_it_has_erased_what_its_entries_say_and_the_same_command_does_the_rest(
    database, engine, eraser, erase, blob_store
) -> None:
    record(engine, [event(f"e{n}") for n in range(5)])
    record(engine, [large("big", b"x" * 300_000, blob_store)])
    left, at = 6, 0
    while left:
        at += 1
        step = iter(range(at))

        def die(*_: object, step: Iterator[int] = step) -> None:
            if next(step, None) is None:
                raise Killed

        hooks.listen(eraser, "before_cursor_execute", die)
        hooks.listen(eraser, "commit", die)
        try:
            erase(chunk=2)
            sweep(eraser, blob_store, datetime.now(UTC) + 2 * AGE)
        except Killed:
            pass
        finally:
            hooks.remove(eraser, "before_cursor_execute", die)
            hooks.remove(eraser, "commit", die)
        listed = [seq for _seq, body in erasures(database) for first, last in body["seqs"] for seq in range(first, last + 1)]
        assert sorted(listed) == sorted(set(range(6)) - set(contents(database)))
        assert [(len(erasures(database)) + 5,)] == database.rows("SELECT seq FROM chain")
        left = len(contents(database))
    sweep(eraser, blob_store, datetime.now(UTC) + 2 * AGE)
    assert [] == [*blob_store.stored(), *blob_store.stored(aside=True)]
    assert at > 10


def test_nobody_deletes_content_without_an_entry_of_the_same_transaction(database, engine, eraser, erase) -> None:
    record(engine, [event("a"), event("b")])
    erase(only=[0])
    ((chain,),) = database.rows("SELECT chain_id FROM chain")

    for connect, statement in (
        (eraser, f"SELECT erase_content('{chain}', 2)"),
        (eraser, f"SELECT erase_content('{chain}', 1)"),
        (eraser, "DELETE FROM content"),
        (eraser, "UPDATE content SET body = ''"),
        (eraser, "DELETE FROM entry"),
        (eraser, "UPDATE chain SET subject = NULL"),
        (eraser, "DELETE FROM dead_letter"),
        (eraser, "UPDATE attempt SET response = NULL"),
        (eraser, "SELECT secrets FROM source"),
        (engine, f"SELECT erase_content('{chain}', 2)"),
        (engine, f"SELECT lock_for_erasure(ARRAY['{chain}'::uuid], ARRAY[1])"),
        (engine, "DELETE FROM content"),
    ):
        with pytest.raises(DBAPIError, match=r"permission denied|nothing is erased without one"), transaction(connect) as conn:
            conn.exec_driver_sql(statement)
    assert [1] == contents(database)


def test_an_erasure_lists_only_events_that_have_content_and_its_own_content_is_the_hashed_one(
    database, engine, eraser, monkeypatch
) -> None:
    record(engine, [event("a"), event("b")])
    ((chain,),) = database.rows("SELECT chain_id FROM chain")
    refused = pytest.raises(DBAPIError, match="lists an entry that is no event, or whose content is gone")

    def batch(seqs: list[int]) -> None:
        with transaction(eraser) as conn:
            found = erasure.chain(conn, chain)
            rule.erase(conn, [rule.Batch(found, seqs)], ORDER, {"acme": b"k" * 32}, NOW)

    batch([0])
    for wrong in ([0], [2], [1, 7]):
        with refused:
            batch(wrong)
    with pytest.raises(DBAPIError, match="not what the entry commits to"), transaction(eraser) as conn:
        monkeypatch.setattr(rule, "append_own", _with_other_content)
        found = erasure.chain(conn, chain)
        rule.erase(conn, [rule.Batch(found, [1])], ORDER, {"acme": b"k" * 32}, NOW)
    assert [1] == contents(database)


def _with_other_content(conn: Connection, event: Event, kind: str, now: datetime) -> Any:
    """Appends an erasure whose content is not what its entry commits to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.chain.commitment", lambda *_: b"p" * 32)
        return append_own(conn, event, kind, now)


def test_what_is_in_flight_is_not_settled_and_its_answer_is_not_kept(database, engine, erase) -> None:
    record(engine, [event("a")])
    lease, (claim,) = claimed(engine)
    store = DeliveryStore(engine, 90)
    (delivery,) = store.load([(claim.id, lease)])

    erase()
    receipt = Receipt(datetime.now(UTC), 0.1, 200, response=b"thanks, Ann")
    store.settle([Tried(delivery, judge(delivery, ENDPOINT, receipt, datetime.now(UTC), 0))])

    assert [("discarded", "its content was erased by entry 1, perhaps while it was being sent")] == database.rows(
        "SELECT state, error FROM delivery"
    )
    assert [] == database.rows("SELECT * FROM attempt")
    assert [] == claimed(engine)[1]


def test_a_dead_delivery_is_not_replayed_once_its_content_is_gone(database, engine, erase) -> None:
    record(engine, [event("a"), event("b")])
    settle_first(engine, Receipt(datetime.now(UTC), 0.1, 500, "status"))
    decision = decision_on(engine, DeadLetterFilter(), "ann")

    erase()
    with transaction(engine) as conn:
        assert replay(decision, lambda _messages: [], conn, 10) is None

    assert [("discarded", 2)] == database.rows("SELECT state, count(*) FROM delivery GROUP BY 1")


def test_a_replay_and_an_erasure_at_the_same_time_wait_for_each_other_in_one_order(database, engine, erase) -> None:
    record(engine, [event(f"e{n}") for n in range(3)], ordered=True)
    settle_first(engine, Receipt(datetime.now(UTC), 0.1, 500, "status"))
    decision = decision_on(engine, DeadLetterFilter(), "ann")
    running = threading.Thread(target=erase)

    with transaction(engine) as conn:
        taken = decision.next(conn, 10)
        running.start()
        waiting = (
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND usename = 'test_eraser'"
        )
        wait_for(lambda: database.rows(waiting) == [(1,)])
        decisions.revive(conn, [each.delivery_id for each in taken], datetime.now(UTC))
        dead_letters.decide(conn, [each.id for each in taken], "replayed", datetime.now(UTC), "ann")
    running.join(10)

    assert [("discarded", 3)] == database.rows("SELECT state, count(*) FROM delivery GROUP BY 1")
    assert [("replayed",)] == database.rows("SELECT state FROM dead_letter")


def test_the_turn_in_an_ordered_chain_is_passed_on(database, engine, erase) -> None:
    record(engine, [event(f"e{n}") for n in range(3)], ordered=True)

    erase(only=[0, 1])

    assert [(2, "pending", True)] == database.rows(
        "SELECT seq, state, next_attempt_at IS NOT NULL FROM delivery WHERE state <> 'discarded'"
    )


def test_ingest_goes_on_in_the_chain_and_duplicates_stay_duplicates(database, engine, erase) -> None:
    record(engine, [event(f"e{n}") for n in range(40)])
    stop, added = threading.Event(), [0]

    def ingest() -> None:
        while not stop.is_set() or added[0] < 5:
            record(engine, [event(f"later{added[0]}")])
            added[0] += 1

    running = threading.Thread(target=ingest)
    running.start()
    try:
        erased = erase(chunk=2)
    finally:
        stop.set()
        running.join(30)
    with transaction(engine) as conn:
        again = append(conn, [event("e1"), event("e2", body=b"other")], {}, datetime.now(UTC))

    assert 40 == erased.entries or erased.entries > 40
    assert (2, ()) == (again.duplicates, again.entries)
    ((entries, head, linked),) = database.rows(
        "SELECT count(*), max(chain.seq), bool_and(entry.seq = 0 OR before.hash = entry.prev_hash) FROM entry JOIN chain"
        " USING (chain_id) LEFT JOIN entry AS before ON before.chain_id = entry.chain_id AND before.seq = entry.seq - 1"
    )
    assert (head + 1, True) == (entries, linked)


@pytest.fixture
def blob_store(tmp_path: Path) -> Blobs:
    return Blobs(str(tmp_path / "blobs"))


def large(id_: str, body: bytes, blobs: Blobs, subject: str = "order-1") -> Event:
    found = event(id_, subject, body)
    found.blob = blobs.put("acme", body).reference
    return found


def test_a_blob_goes_with_the_last_that_refers_to_it(database, engine, eraser, erase, blob_store) -> None:
    body = b"x" * 300_000
    record(engine, [large("a", body, blob_store), large("b", body, blob_store, "order-2")])
    now = datetime.now(UTC)

    erase()
    assert 1 == sweep(eraser, blob_store, now).kept
    erase("order-2")
    assert 1 == sweep(eraser, blob_store, now).waiting
    assert body == blob_store.get("acme", large("c", body, blob_store).blob or "")  # put again meanwhile
    assert 1 == sweep(eraser, blob_store, now).waiting
    assert 1 == sweep(eraser, blob_store, now + 2 * AGE).deleted
    assert [] == [*blob_store.stored(), *blob_store.stored(aside=True)]
    assert [] == database.rows("SELECT * FROM erased_blob")


def test_a_message_under_way_with_the_same_bytes_keeps_the_blob(database, engine, eraser, erase, blob_store) -> None:
    body = b"x" * 300_000
    record(engine, [large("a", body, blob_store)])
    later = large("b", body, blob_store)  # stored, and not recorded yet

    erase()
    sweep(eraser, blob_store, datetime.now(UTC))
    assert body == blob_store.hold("acme", later.blob or "")
    record(engine, [later])

    assert 1 == sweep(eraser, blob_store, datetime.now(UTC) + 2 * AGE).kept
    assert body == blob_store.get("acme", later.blob or "")


def test_of_a_mail_its_document_goes_and_what_identifies_it_in_its_mailbox(database, engine, eraser_cli, cli) -> None:
    database.add_source("support", "imap")
    database.run("INSERT INTO mailbox (id, settings, credentials) SELECT id, '{}', '' FROM source WHERE name = 'support'")
    mail = event("sha256:1", "ann@b.example", b"From: Ann")
    attributes = {**mail.attributes, "source": "support", "datacontenttype": "message/rfc822"}
    record(engine, [Event("acme", attributes, mail.body, mail.fingerprint, mail.chain_key)], ())
    database.run(
        "INSERT INTO mail_item (mailbox_id, source_key, folder, message_id, size, internal_date, event_id, seen_at)"
        " SELECT id, 'imap/1/' || n, 'INBOX', n || '@b.example', 9, now(), 'sha256:' || n, now()"
        " FROM source, generate_series(1, 2) n WHERE source.name = 'support'"
    )

    told = eraser_cli.json("erase", "acme", "ann@b.example", *TERMS, "--yes")

    assert {"documents": 1, "mails": 1}.items() <= told[-1]["erased"].items()
    assert [] == database.rows("SELECT * FROM mail_document")
    assert [("imap/1/1", None, None, ["erased"]), ("imap/1/2", "2@b.example", "sha256:2", [])] == database.rows(
        "SELECT source_key, message_id, event_id, flags FROM mail_item ORDER BY 1"
    )


def test_an_export_has_the_erased_entries_without_content_and_the_erasure_with_it(
    database, engine, erase, cli, tmp_path: Path
) -> None:
    record(engine, [event("a"), event("b")])
    erase(only=[0])

    cli.run("export", "acme", "-o", tmp_path / "acme.jsonl")

    lines = [json.loads(line) for line in (tmp_path / "acme.jsonl").read_text().splitlines()]
    assert [False, True, True] == [each["content"] is not None for each in lines if "envelope" in each]


def test_a_command_that_is_killed_leaves_its_beginning_in_the_audit_and_repeating_it_does_the_rest(
    database, engine, eraser_cli
) -> None:
    record(engine, [event(f"e{n}") for n in range(12)])
    with eraser_cli.process("erase", "acme", "order-1", *TERMS, "--rate", "8/s", "--yes") as process:
        wait_for(lambda: len(contents(database)) < 12)
        process.kill()
        process.wait(10)
    assert 0 < len(contents(database)) < 12
    assert [("begun",)] == database.rows("SELECT phase FROM audit")

    eraser_cli.output("erase", "acme", "order-1", *TERMS, "--yes")

    assert [] == contents(database)
    listed = [seq for _seq, body in erasures(database) for first, last in body["seqs"] for seq in range(first, last + 1)]
    assert list(range(12)) == sorted(listed)
