"""Documents of mails: planned with the entry, made apart from it, delivered, shown, rebuilt, deleted with the content."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import Engine
from standardwebhooks import Webhook

from ops.runtime.blobs import Blobs
from ops.runtime.db import make_engine, transaction
from pipeline.admit import admit
from pipeline.append import append
from pipeline.delivery.addresses import LOOPBACK, networks
from pipeline.mail.event_attributes import event_id, read_attributes
from pipeline.store.ledger import scan
from pipeline.store.mail import documents as mail_documents
from pipeline.store.mail import mailboxes
from pipeline.store.mail.documents import DueDocument
from schemas.blob import LARGEST_INLINE
from schemas.catalog import Catalog
from schemas.endpoint import Endpoint
from schemas.event import Event
from schemas.mail_document import PARSER
from schemas.mailbox import Mailbox
from schemas.message import Message
from schemas.source import Source
from support.deliveries import claimed, in_message
from support.mail.nasty import NASTY, PLAIN, headed, multipart, part
from support.sending import SECRET
from support.waiting import wait_for
from workers.delivery.store import DeliveryStore
from workers.delivery.worker import DeliveryLoop
from workers.documents.mail_parser import MailParser
from workers.documents.maker import BATCH, DocumentMaker
from workers.ingest.claim_check import exchanged
from workers.live_catalog import CatalogWatch
from workers.net.terms import Terms

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MAIL = PLAIN + b"\r\nhello\r\n"
CATALOG = Catalog(
    1,
    {"acme": b"k" * 32},
    {("acme", name): Source("acme", name, "imap", max_body=64 << 20) for name in ("support", "sales")},
    {},
)
WINMAIL = NASTY["winmail.dat"]
#: The process that parses mails, with a library that never returns.
HANGING = """
import time
from pipeline.mail import content
from workers.documents import mail_parser_child
content.open_tnef = lambda *_: time.sleep(600)
mail_parser_child.main()
"""


@pytest.fixture
def hanging(monkeypatch) -> None:
    monkeypatch.setattr("workers.documents.mail_parser.COMMAND", (sys.executable, "-c", HANGING))


def event(raw: bytes, source: str = "support", content_type: str = "message/rfc822") -> Event:
    attributes = {
        "specversion": "1.0",
        "id": event_id(raw),
        "source": source,
        "type": "email.received",
        "time": "2026-01-01T00:00:00Z",
    }
    attributes |= {"subject": read_attributes(raw, "address", "support@acme.example", source).subject}
    headers = {f"cloudEvents:{name}": value for name, value in attributes.items()}
    return admit(Message(f"acme.{source}", raw, content_type, None, headers, trusted=True), CATALOG, NOW)[0]


def record(engine: Engine, *events: Event, to: tuple[Endpoint, ...] = ()) -> None:
    with transaction(engine) as conn:
        append(conn, events, {"acme": tuple((each, lambda _attributes: True) for each in to)}, datetime.now(UTC))


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(str(tmp_path / "blobs"))


@pytest.fixture(scope="module")
def reader() -> Iterator[MailParser]:
    reader = MailParser(dns=False)
    yield reader
    reader.close()


@pytest.fixture
def maker(engine: Engine, blobs: Blobs, reader: MailParser) -> DocumentMaker:
    return DocumentMaker(engine, blobs, reader)


@pytest.fixture
def configured(database: Any) -> Any:
    database.add_tenant()
    database.add_source("support", "none")
    database.add_source("sales", "none")
    return database


def document(database: Any, which: str = "true") -> dict[str, Any]:
    ((found,),) = database.rows(f"SELECT document FROM mail_document JOIN content USING (chain_id, seq) WHERE {which}")
    return dict(found)


def test_every_nasty_mail_is_recorded_to_the_byte_and_gets_a_document_that_postgres_takes(
    database, engine, blobs, maker
) -> None:
    messages = [event(raw) for raw in NASTY.values()]
    kept = [each for one in messages for each in exchanged(blobs, Message("acme.support", b""), [one])]
    record(engine, *kept)

    with transaction(engine) as conn:
        entries = list(scan.entries(conn, scan.Scope()))
    found = {blobs.get("acme", each.blob) if each.blob else each.body for each in entries}
    assert set(NASTY.values()) == found
    assert sum(len(raw) > LARGEST_INLINE for raw in NASTY.values()) == sum(each.blob is not None for each in entries) > 5
    assert len(NASTY) > 5 * BATCH

    maker.turn()

    rows = database.rows("SELECT document ->> 'sha256', document -> 'flags', due, parser FROM mail_document")
    assert {event_id(raw).removeprefix("sha256:") for raw in NASTY.values()} == {row[0] for row in rows}
    assert [] == [row for row in rows if "unparsed" in row[1] or "careful" in row[1] or row[2] or row[3] != PARSER]


def test_only_mails_get_a_document(database, engine) -> None:
    record(engine, event(MAIL), event(b"{}", content_type="application/json"), event(PLAIN, content_type="Message/RFC822; x=y"))

    assert [(2,)] == database.rows("SELECT count(*) FROM mail_document WHERE due")


def test_a_mail_that_hangs_its_reader_is_read_again_carefully(engine, database, blobs, hanging) -> None:
    reader = MailParser(dns=False, life=2.0, margin=30.0)  # the margin is for a slow start
    maker = DocumentMaker(engine, blobs, reader)
    record(engine, event(WINMAIL), event(MAIL))

    maker.turn()
    maker.close()

    careful = document(database, "subject = 'a@x.example' AND document -> 'flags' ? 'careful'")
    assert ["careful"] == careful["flags"]
    assert ["winmail.dat"] == [each["name"] for each in careful["attachments"]]
    assert "hello" == document(database, "NOT document -> 'flags' ? 'careful'")["text"]


def test_a_reader_that_was_killed_or_stopped_is_replaced(reader, monkeypatch) -> None:
    reader.read(MAIL)
    os.kill(reader._process.pid, signal.SIGKILL)
    assert "hello" == reader.read(MAIL)["text"]

    stopped, started = reader._process, reader._started
    os.kill(stopped.pid, signal.SIGSTOP)

    def patient_with_others() -> Any:
        process = started()
        monkeypatch.setattr(reader, "_longest", 0.3 if process is stopped else 60.0)
        return process

    monkeypatch.setattr(reader, "_started", patient_with_others)
    assert "hello" == reader.read(MAIL)["text"]


def test_a_mail_that_ends_the_reader_twice_is_said_to_be_unparsed(monkeypatch) -> None:
    reader = MailParser(dns=False)
    monkeypatch.setattr("workers.documents.mail_parser._exchanged", lambda *_: (_ for _ in ()).throw(OSError))

    found = reader.read(MAIL)
    reader.close()

    assert (["careful", "unparsed"], len(MAIL)) == (found["flags"], found["size"])
    with pytest.raises(OSError, match="closed"):
        reader.read(MAIL)


def test_the_reader_is_told_no_secret_and_asks_no_more_memory_than_it_may(reader, monkeypatch) -> None:
    monkeypatch.setenv("WAXSEAL_KEYS", "hunter2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    fresh = MailParser(dns=False)
    fresh.read(MAIL)
    child = Path("/proc") / str(fresh._process.pid)

    assert b"hunter2" not in (child / "environ").read_bytes()
    assert "1610612736" in next(line for line in (child / "limits").read_text().splitlines() if "address space" in line)
    fresh.close()


def test_two_makers_never_take_the_same_mail_and_what_is_not_made_is_taken_again_later(engine) -> None:
    record(engine, *[event(headed(b"X: %d" % n)) for n in range(30)])
    with transaction(engine) as first, transaction(engine) as second:
        one, other = mail_documents.take(first, NOW, 20), mail_documents.take(second, NOW, 20)
    with transaction(engine) as conn:
        nothing = mail_documents.take(conn, NOW + timedelta(minutes=4), 30)
        mail_documents.give_back(conn, [each.key for each in one])
    with transaction(engine) as conn:
        given_back = mail_documents.take(conn, NOW + timedelta(minutes=4), 30)
    with transaction(engine) as conn:
        forgotten = mail_documents.take(conn, NOW + timedelta(minutes=6), 30)

    assert (20, 10, 0, 20, 10) == (len(one), len(other), len(nothing), len(given_back), len(forgotten))
    assert set() == {each.key for each in one} & {each.key for each in other}


def test_when_the_blob_store_is_away_the_others_are_made_and_the_mail_waits(database, engine, tmp_path, reader) -> None:
    away = Blobs(str(tmp_path / "missing"))
    large = headed(body=b"x" * (LARGEST_INLINE + 1))
    elsewhere = Blobs(str(tmp_path / "there"))
    record(engine, *exchanged(elsewhere, Message("acme.support", b""), [event(large)]), event(MAIL))

    DocumentMaker(engine, away, reader).turn()
    assert [(True,)] == database.rows("SELECT blob IS NOT NULL FROM mail_document JOIN content USING (chain_id, seq) WHERE due")

    database.connect().execute("UPDATE mail_document SET taken_at = taken_at - interval '6 minutes'")
    DocumentMaker(engine, elsewhere, reader).turn()
    assert [(0,)] == database.rows("SELECT count(*) FROM mail_document WHERE due")


def test_a_mail_whose_blob_is_lost_has_a_document_that_says_so(database, engine, blobs, maker, tmp_path) -> None:
    large = headed(body=b"x" * (LARGEST_INLINE + 1))
    record(engine, *exchanged(blobs, Message("acme.support", b""), [event(large)]))
    for path in (tmp_path / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()

    maker.turn()

    assert ["unparsed"] == document(database)["flags"]
    assert "is not in the store" in document(database)["notes"][0]


def test_with_the_content_the_document_is_erased_and_none_is_made_any_more(database, engine, maker) -> None:
    record(engine, event(MAIL))
    maker.turn()
    with transaction(engine) as conn:
        conn.exec_driver_sql("UPDATE mail_document SET due = true")
        (due,) = mail_documents.take(conn, datetime.now(UTC), 1)
    with database.connect() as owner:
        owner.execute("DELETE FROM content")

    maker.make(due)

    assert [] == database.rows("SELECT * FROM mail_document")


def test_the_mailboxs_trusted_servers_are_believed(configured, engine, maker) -> None:
    mailbox = Mailbox(0, "acme", "support", "imap", "u", host="imap.example", password="p", authservs=("mx.y.example",))
    with transaction(_owner(configured)) as conn:
        mailboxes.put(conn, mailbox, configured.vault.encrypt, NOW, anew=True)
    raw = headed(b"Authentication-Results: mx.y.example; spf=pass smtp.mailfrom=x.example")
    record(engine, event(raw), event(raw, "sales"))

    maker.turn()

    assert "pass" == document(configured, "source = 'support'")["authentication"]["spf"]["result"]
    assert "unknown" == document(configured, "source = 'sales'")["authentication"]["spf"]["result"]


def _owner(database: Any) -> Engine:
    return make_engine(database.url, pool_size=1)


# Delivery.


@pytest.fixture
def deliver(configured, engine, blobs) -> Iterator[Callable[[], None]]:
    watch = CatalogWatch(engine, configured.vault)
    watch.start()
    store = DeliveryStore(engine, 90.0)
    delivery_loop = DeliveryLoop(store, watch, Terms("waxseal/test", networks(LOOPBACK)), blobs, mail_dns=False)
    delivery_loop.open(lambda: None)
    watch.wait(10)

    def deliver() -> None:
        lease, claims = claimed(engine)
        delivery_loop.deliver(lease.hex, time.time() + 90, in_message(claims))
        wait_for(lambda: not configured.rows("SELECT FROM delivery WHERE lease = %s", lease) and not delivery_loop.busy)

    yield deliver
    delivery_loop.close(0.2)
    watch.stop()


def test_endpoints_that_want_documents_get_them_signed_and_others_the_mail_as_it_came(
    configured, engine, sink, deliver, maker
) -> None:
    made, unmade = MAIL, headed(b"Subject: not made yet", body=b"x" * (LARGEST_INLINE + 1))
    ids = {
        name: configured.add_endpoint(name, sink.url(f"/200/{name}"), SECRET, **settings)
        for name, settings in {"documents": {"body": "document"}, "raw": {}}.items()
    }
    to = tuple(Endpoint(id, "acme", name, "http://127.0.0.1/") for name, id in ids.items())
    record(engine, event(made), to=to)
    maker.turn()
    record(
        engine,
        *exchanged(maker._blobs, Message("acme.support", b""), [event(unmade)]),
        event(b'{"a": 1}', content_type="application/json"),
        to=to,
    )

    deliver()

    got = {name: [each for each in sink.requests if each.path.endswith(name)] for name in ids}
    documents = [orjson.loads(each.body) for each in got["documents"]]
    assert {made, unmade, b'{"a": 1}'} == {each.body for each in got["raw"]}
    assert ["not made yet", "s"] == sorted(each["subject"] for each in documents if "subject" in each)
    assert {"a": 1} in documents
    for each in got["documents"]:
        assert "application/json" == each.headers["content-type"]
        Webhook(SECRET).verify(each.body, each.headers)
    assert ["urn:waxseal:mail-document:v1"] * 2 == [
        each.headers["ce-dataschema"] for each in got["documents"] if "ce-dataschema" in each.headers
    ]
    assert {"message/rfc822", "application/json"} == {each.headers["content-type"] for each in got["raw"]}
    assert sink.ids().values()
    assert set(sink.ids().values()) == {2}
    assert [(0,)] == configured.rows("SELECT count(*) FROM mail_document WHERE due")


def test_a_document_that_cannot_be_had_just_now_is_no_failed_try(configured, engine, sink, deliver, monkeypatch) -> None:
    def away(*_: object) -> dict[str, Any]:
        raise OSError("no process")

    monkeypatch.setattr(MailParser, "read", away)
    id = configured.add_endpoint("documents", sink.url("/200/documents"), SECRET, body="document")
    record(engine, event(MAIL), to=(Endpoint(id, "acme", "documents", "http://127.0.0.1/"),))

    deliver()

    assert [("pending", 0)] == configured.rows("SELECT state, attempts FROM delivery")
    assert [] == sink.requests


# The command line.


def test_a_mail_is_shown_by_its_id_before_and_after_its_document_is_made(configured, engine, cli) -> None:
    record(engine, event(MAIL))

    (first,) = cli.json("mail", "show", "acme", event_id(MAIL))
    configured.connect().execute("UPDATE mail_document SET document = jsonb_set(document, '{subject}', '\"older\"')")
    (second,), (again,) = (cli.json("mail", "show", "acme", event_id(MAIL), *more) for more in ((), ("--again",)))
    shown = cli.run("mail", "show", "acme", event_id(MAIL))

    assert ["s", "older", "s"] == [each["document"]["subject"] for each in (first, second, again)]
    assert ("support", "acme", 0) == (first["source"], first["tenant"], first["seq"])
    assert ("a@x.example", "hello") == (first["document"]["from"][0]["address"], first["document"]["text"])
    assert (0, ["from", "a@x.example"]) == (
        shown.exit_code,
        next(line for line in shown.output.splitlines() if line.startswith("from")).split(),
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nobody", "x"), "there is no tenant 'nobody'"),
        (("acme", "sha256:00"), "has no event 'sha256:00'"),
        (("acme", event_id(MAIL)), "came through sales, support: say which with --source"),
        (("acme", event_id(b"{}")), "is of type application/json, and no mail"),
        (("acme", event_id(PLAIN)), "was erased"),
    ],
)
def test_what_is_not_there_or_no_mail_is_said_in_one_line(configured, engine, cli, arguments, said) -> None:
    record(engine, event(MAIL), event(MAIL, "sales"), event(b"{}", content_type="application/json"), event(PLAIN))
    configured.connect().execute("DELETE FROM content WHERE octet_length(body) = %s", (len(PLAIN),))

    ended = cli.run("mail", "show", *arguments)

    assert (2, True) == (ended.exit_code, said in ended.output)


def test_documents_are_counted_and_made_again_while_the_old_ones_stay(configured, engine, cli, maker) -> None:
    record(engine, event(MAIL), event(PLAIN))
    maker.turn()
    configured.connect().execute("UPDATE mail_document SET parser = 0 WHERE seq = 0")
    before = cli.json("mail", "documents")
    outdated = cli.json("mail", "documents", "--outdated")
    maker.turn()
    everything = cli.json("mail", "documents", "--rebuild")

    assert [{"made": 2, "waiting": 0, "outdated": 1, "unparsed": 0, "made_again": 0}] == before
    assert (1, 1, 2) == (outdated[0]["made_again"], outdated[0]["waiting"], outdated[0]["made"])
    assert (2, 2, 0) == (everything[0]["made_again"], everything[0]["waiting"], everything[0]["outdated"])
    assert "2 documents to be made again" not in cli.run("mail", "documents").output


def test_the_relay_makes_documents(configured, engine, start) -> None:
    record(engine, event(MAIL))

    start("relay", mail_dns="false")

    wait_for(lambda: configured.rows("SELECT FROM mail_document WHERE NOT due"))
    assert "hello" == document(configured)["text"]


def test_a_maker_that_is_closed_lets_go_of_the_mail_it_was_at(engine, blobs, hanging) -> None:
    reader = MailParser(dns=False, life=60.0)
    maker = DocumentMaker(engine, blobs, reader)
    record(engine, event(WINMAIL))
    failures: list[Exception] = []

    def turn() -> None:
        try:
            maker.turn()
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=turn)
    thread.start()
    wait_for(lambda: reader._process is not None)
    began = time.monotonic()
    maker.close()
    thread.join(30)

    assert (False, 1) == (thread.is_alive(), len(failures))
    assert time.monotonic() - began < 15
    with transaction(engine) as conn:
        assert 1 == len(mail_documents.take(conn, datetime.now(UTC), 5))


def test_what_a_maker_is_given_is_what_is_in_the_ledger(engine) -> None:
    record(engine, event(multipart(part(b"text/plain", b"x"))))
    with transaction(engine) as conn:
        (due,) = mail_documents.take(conn, NOW, 5)

    assert ("acme", "support", True) == (
        due.tenant,
        due.source,
        isinstance(due, DueDocument) and isinstance(due.chain_id, UUID),
    )
