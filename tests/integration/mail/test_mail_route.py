"""Mailboxes through real processes: from the server to the ledger and the subscribers, whatever dies or hangs."""

import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from ops.config.apply import apply_file
from ops.settings import Settings
from support.dovecot import PASSWORD, Dovecot, mail, private_dovecot

KEYS = "tenant: acme, kind: imap, host: 127.0.0.1, tls: false, password: " + PASSWORD


@pytest.fixture(scope="module")
def server() -> Iterator[Dovecot]:
    with private_dovecot(connections=200) as running:
        yield running


@pytest.fixture
def apply(database, tmp_path: Path) -> Callable[..., None]:
    def run(*mailboxes: str, more: str = "") -> None:
        lines = ["tenants: [{name: acme}]", "mailboxes:", *(f"  - {{{KEYS}, {each}}}" for each in mailboxes), more]
        (tmp_path / "waxseal.yaml").write_text("\n".join(lines))
        apply_file(tmp_path / "waxseal.yaml", Settings(database_url=database.url, keys=database.key))

    return run


def entries(database) -> int:
    return database.rows("SELECT count(*) FROM entry")[0][0]


def until(happened: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_puller_that_is_killed_loses_and_repeats_nothing(apply, start, server, database) -> None:
    for number in range(3000):
        server.deliver("killed", mail(number, 2000))
    apply(f"name: support, username: killed, port: {server.port}, subject: all")
    start("ingest")
    for enough in (300, 900):
        process = start("mail-pull")
        assert until(lambda enough=enough: entries(database) >= enough)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with database.connect() as conn:  # otherwise it takes half a minute
            conn.execute("UPDATE mailbox SET lease_until = now() WHERE lease_until IS NOT NULL")
            conn.execute("UPDATE mailbox SET enqueued_at = NULL")
    server.deliver("killed", mail(5000))
    start("mail-pull")

    assert until(lambda: entries(database) == 3001), entries(database)
    assert until(lambda: database.rows("SELECT count(*) FROM mail_item")[0][0] == 3001)
    assert entries(database) == 3001
    assert [(3001,)] == database.rows("SELECT count(DISTINCT fingerprint) FROM entry")


def test_what_was_there_is_recorded_and_not_delivered_where_that_is_said(apply, start, server, database) -> None:
    for number in range(3):
        server.deliver("muted", mail(number))
        server.deliver("heard", mail(number))
    endpoint = 'endpoints: [{tenant: acme, name: out, url: "http://127.0.0.1:9/"}]'
    muted = f"name: muted, username: muted, port: {server.port}, deliver_backfill: false, poll: 1s"
    apply(muted, f"name: heard, username: heard, port: {server.port}", more=endpoint)
    start("ingest")
    start("mail-pull")
    assert until(lambda: entries(database) == 6)
    server.deliver("muted", mail(7))
    assert until(lambda: entries(database) == 7)

    owed = database.rows("SELECT source, count(*) FROM delivery JOIN content USING (chain_id, seq) GROUP BY 1 ORDER BY 1")
    assert [("heard", 3), ("muted", 1)] == owed
    backfilled = "SELECT count(*) FROM content WHERE position('\"backfill\":\"true\"' IN convert_from(attributes, 'UTF8')) > 0"
    assert [(6,)] == database.rows(backfilled)


def test_mailboxes_that_hang_do_not_slow_the_others(apply, start, server, database) -> None:
    users = [f"f{number}" for number in range(30)]
    for user in users:
        for number in range(5):
            server.deliver(user, mail(number).replace(b"Subject: ", f"Subject: {user} ".encode()))
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        port = silent.getsockname()[1]
        hung = [f"name: hung-{number}, username: x, port: {port}" for number in range(10)]
        good = [f"name: {user}, username: {user}, port: {server.port}" for user in users]
        start("ingest")
        start("mail-pull", mail_threads=16)
        apply(*hung, *good)
        assert until(lambda: entries(database) > 0)
        began = time.monotonic()
        assert until(lambda: entries(database) >= 150, 12), entries(database)

    assert time.monotonic() - began < 12  # a single hanging server times out after 15 s


def test_a_mail_that_arrives_is_recorded_long_before_it_is_due(apply, start, server, database) -> None:
    server.deliver("quick", mail(1))
    apply(f"name: quick, username: quick, port: {server.port}, poll: 1h")
    for command in ("ingest", "mail-pull", "mail-idle"):
        start(command)
    assert until(lambda: entries(database) == 1)
    for number in (2, 3):
        server.deliver("quick", mail(number))
        assert until(lambda number=number: entries(database) == number)


def test_a_mail_of_no_bytes_is_recorded_and_stops_nothing(apply, start, server, database) -> None:
    for raw in (b"", mail(1), b"", mail(2)):
        server.deliver("empty", raw)
    apply(f"name: empty, username: empty, port: {server.port}, poll: 1s")
    start("ingest")
    start("mail-pull")

    assert until(lambda: entries(database) == 3), entries(database)  # the two empty mails are one event
    assert [(0, 1), (1, 2)] == database.rows("SELECT least(length(body), 1), count(*) FROM content GROUP BY 1 ORDER BY 1")
    assert [(4, 4)] == database.rows("SELECT count(*), count(event_id) FROM mail_item")
    server.deliver("empty", b"")
    assert until(lambda: database.rows("SELECT count(*) FROM mail_item")[0][0] == 5)
    assert entries(database) == 3


def test_a_large_mail_goes_by_the_blob_store(apply, start, server, database, tmp_path) -> None:
    large = mail(1, 25 * 1024 * 1024)
    server.deliver("large", large)
    apply(f"name: large, username: large, port: {server.port}")
    start("ingest")
    start("mail-pull")

    assert until(lambda: entries(database) == 1)
    ((blob,),) = database.rows("SELECT blob FROM content")
    assert blob.startswith("sha256:")
    (stored,) = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    assert stored.stat().st_size == len(large)


def test_a_database_that_goes_away_and_comes_back_loses_nothing(apply, start, server, database, servers) -> None:
    for number in range(2000):
        server.deliver("outage", mail(number, 1000))
    apply(f"name: outage, username: outage, port: {server.port}, subject: all")
    start("ingest")
    start("mail-pull")
    assert until(lambda: entries(database) > 100)
    with psycopg.connect(servers.database_url, autocommit=True) as conn:  # closes every connection to the test's database
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            [database.rows("SELECT current_database()")[0][0]],
        )
    assert until(lambda: entries(database) == 2000, 60), entries(database)
    assert until(lambda: database.rows("SELECT count(*) FROM mail_item")[0][0] == 2000)
