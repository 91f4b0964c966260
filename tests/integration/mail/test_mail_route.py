"""Mailboxes through processes that all tests of this file share: from the server to the ledger, whatever dies or hangs."""

import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ops.config.apply import apply_file
from ops.runtime.blobs import Blobs
from ops.settings import Settings
from support.forked import Forked
from support.mail.dovecot import PASSWORD, mail
from support.sessions import end_connections
from support.waiting import wait_for

KEYS = "tenant: acme, kind: imap, host: 127.0.0.1, tls: false, password: " + PASSWORD

Apply = Callable[..., None]


@pytest.fixture
def apply(shared_database, tmp_path: Path) -> Apply:
    """Configures these mailboxes and no others."""

    def run(*mailboxes: str, more: str = "") -> None:
        lines = ["tenants: [{name: acme}]", "mailboxes:", *(f"  - {{{KEYS}, {each}}}" for each in mailboxes), more]
        (tmp_path / "waxseal.yaml").write_text("\n".join(lines))
        settings = Settings(database_url=shared_database.url, keys=shared_database.key)
        apply_file(tmp_path / "waxseal.yaml", settings, prune=True, give_up=True)

    return run


@pytest.fixture(scope="module", autouse=True)
def pullers(shared_start, blob_folder) -> list[Forked]:
    """The process that pulls is the last of these."""
    shared_start("ingest", blobs=blob_folder)
    return [shared_start("mail-pull", blobs=blob_folder, mail_threads=16)]


@pytest.fixture
def entries(shared_database) -> Callable[..., int]:
    """Counts the entries in the ledger of these mailboxes."""

    def count(*mailboxes: str) -> int:
        sql = "SELECT count(*) FROM entry JOIN content USING (chain_id, seq) WHERE source = ANY(%s)"
        ((found,),) = shared_database.rows(sql, list(mailboxes))
        return found

    return count


@pytest.fixture
def items(shared_database) -> Callable[[str], int]:
    """Counts the mails that are held of a mailbox."""

    def count(mailbox: str) -> int:
        sql = "SELECT count(*) FROM mail_item JOIN source ON source.id = mailbox_id WHERE name = %s"
        ((found,),) = shared_database.rows(sql, mailbox)
        return found

    return count


def named(*names: str, port: int, more: str = "") -> Sequence[str]:
    return [f"name: {name}, username: {name}, port: {port}{more}" for name in names]


def test_what_was_there_is_recorded_and_not_delivered_where_that_is_said(apply, server, entries, shared_database) -> None:
    for number in range(3):
        server.deliver("muted", mail(number))
        server.deliver("heard", mail(number))
    endpoint = 'endpoints: [{tenant: acme, name: out, url: "http://127.0.0.1:9/"}]'
    muted = named("muted", port=server.port, more=", deliver_backfill: false, poll: 1s")
    apply(*muted, *named("heard", port=server.port), more=endpoint)
    wait_for(lambda: entries("muted", "heard") == 6)
    server.deliver("muted", mail(7))
    wait_for(lambda: entries("muted", "heard") == 7)

    deliveries = "SELECT source, count(*) FROM delivery JOIN content USING (chain_id, seq) GROUP BY 1 ORDER BY 1"
    assert [("heard", 3), ("muted", 1)] == shared_database.rows(deliveries)
    backfilled = "SELECT count(*) FROM content WHERE position('\"backfill\":\"true\"' IN convert_from(attributes, 'UTF8')) > 0"
    assert [(6,)] == shared_database.rows(f"{backfilled} AND source IN ('muted', 'heard')")


def test_mailboxes_that_hang_do_not_slow_the_others(apply, server, entries, lateness) -> None:
    users = [f"f{number}" for number in range(15)]
    for user in users:
        for number in range(3):
            server.deliver(user, mail(number).replace(b"Subject: ", f"Subject: {user} ".encode()))
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        port = silent.getsockname()[1]
        hung = [f"name: hung-{number}, username: x, port: {port}" for number in range(10)]
        began = time.monotonic()
        apply(*hung, *named(*users, port=server.port))
        wait_for(lambda: entries(*users) >= 45)

        assert time.monotonic() - began < 12 + lateness()  # a single hanging server times out after 15 s


def test_a_mail_of_no_bytes_is_recorded_and_stops_nothing(apply, server, entries, items, shared_database) -> None:
    for raw in (b"", mail(1), b"", mail(2)):
        server.deliver("empty", raw)
    apply(*named("empty", port=server.port, more=", poll: 1s"))

    wait_for(lambda: entries("empty") == 3)  # the two empty mails are one event
    lengths = "SELECT least(length(body), 1), count(*) FROM content WHERE source = 'empty' GROUP BY 1 ORDER BY 1"
    assert [(0, 1), (1, 2)] == shared_database.rows(lengths)
    wait_for(lambda: items("empty") == 4)
    assert [] == shared_database.rows("SELECT FROM mail_item WHERE event_id IS NULL")
    server.deliver("empty", b"")
    wait_for(lambda: items("empty") == 5)
    assert entries("empty") == 3


def test_a_large_mail_goes_by_the_blob_store(apply, server, entries, shared_database, blob_folder) -> None:
    large = mail(1, 9 * 1024 * 1024)  # larger than a batch
    server.deliver("large", large)
    apply(*named("large", port=server.port))

    wait_for(lambda: entries("large") == 1)
    ((blob,),) = shared_database.rows("SELECT blob FROM content WHERE source = 'large'")
    assert large == Blobs(str(blob_folder)).get("acme", blob)


def test_a_mail_that_arrives_is_recorded_long_before_it_is_due(apply, server, entries, shared_start) -> None:
    server.deliver("quick", mail(1))
    apply(*named("quick", port=server.port, more=", poll: 1h"))
    shared_start("mail-idle")
    wait_for(lambda: entries("quick") == 1)
    for number in (2, 3):
        server.deliver("quick", mail(number))
        wait_for(lambda number=number: entries("quick") == number)


def test_a_puller_that_is_killed_loses_and_repeats_nothing(
    apply, server, entries, items, shared_database, pullers, shared_start, blob_folder
) -> None:
    for number in range(1000):
        server.deliver("killed", mail(number, 1000))
    apply(*named("killed", port=server.port, more=", subject: all"))
    for enough in (150, 450):
        wait_for(lambda enough=enough: entries("killed") >= enough)
        pullers[-1].kill()
        pullers[-1].wait()
        shared_database.run(
            "UPDATE mailbox SET lease_until = now() WHERE lease_until IS NOT NULL"
        )  # else it takes half a minute
        shared_database.run("UPDATE mailbox SET enqueued_at = NULL")
        server.deliver("killed", mail(5000 + enough))
        pullers.append(shared_start("mail-pull", blobs=blob_folder, mail_threads=16))

    wait_for(lambda: entries("killed") >= 1002)
    wait_for(lambda: items("killed") == 1002)
    distinct = (
        "SELECT count(*), count(DISTINCT fingerprint) FROM entry JOIN content USING (chain_id, seq) WHERE source = 'killed'"
    )
    assert [(1002, 1002)] == shared_database.rows(distinct)


def test_a_database_that_goes_away_and_comes_back_loses_nothing(apply, server, entries, items, shared_database) -> None:
    for number in range(700):
        server.deliver("outage", mail(number, 1000))
    apply(*named("outage", port=server.port, more=", subject: all"))
    wait_for(lambda: entries("outage") > 50)
    end_connections(shared_database)
    wait_for(lambda: entries("outage") >= 700, 60)
    wait_for(lambda: items("outage") >= 700)
    assert (700, 700) == (entries("outage"), items("outage"))
