"""The ingest worker as a process, between a real broker and a real database."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from urllib.request import urlopen

import pika
import psycopg
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from ops.servers.private import PrivateServers
from ops.settings import environment
from support.waiting import wait_for
from workers.amqp.topology import IN, INBOX, RECEIVED, declare

pytestmark = pytest.mark.usefixtures("configured")

Publish = Callable[..., None]


@pytest.fixture
def configured(database) -> None:
    database.add_tenant("acme")
    database.add_source("orders", "amqp")
    database.add_source("hooks", "token", "secret")
    database.add_endpoint("billing", "http://127.0.0.1:1/")


@pytest.fixture
def channel(servers: PrivateServers) -> Iterator[BlockingChannel]:
    with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
        channel = connection.channel()
        declare(channel)
        channel.queue_purge(INBOX)
        channel.confirm_delivery()
        yield channel


@pytest.fixture
def publish(channel: BlockingChannel) -> Publish:
    def publish(body: bytes, key: str = "acme.orders", exchange: str = IN, **properties: object) -> None:
        channel.basic_publish(exchange, key, body, pika.BasicProperties(delivery_mode=2, **properties), mandatory=True)

    return publish


@pytest.fixture
def start(servers: PrivateServers, database) -> Iterator[Callable[..., subprocess.Popen]]:
    processes: list[subprocess.Popen] = []

    def start(**settings: str) -> subprocess.Popen:
        env = environment() | {
            "WAXSEAL_DATABASE_URL": database.worker_url,
            "WAXSEAL_AMQP_URL": servers.amqp_url,
            "WAXSEAL_KEYS": database.key,
            **settings,
        }
        process = subprocess.Popen([sys.executable, "-m", "ops.cli", "ingest"], env=env)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait(10)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def metrics_of(port: int) -> str:
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def attributes(database) -> list[dict[str, str]]:
    return [json.loads(row[0]) for row in database.rows("SELECT attributes FROM content JOIN entry USING (chain_id, seq)")]


def by_id(database) -> dict[str, dict[str, str]]:
    return {each["id"]: each for each in attributes(database)}


def buried(database) -> list[tuple]:
    return database.rows("SELECT stage, reason FROM dead_letter ORDER BY id")


def test_foreign_messages_of_every_mode_become_entries(database, start, publish) -> None:
    ce = {"specversion": "1.0", "type": "order.paid", "source": "/up", "subject": "order-1", "time": "2026-01-01T00:00:00Z"}
    for prefix in ("cloudEvents:", "cloudEvents_"):
        headers = {prefix + name: value for name, value in (ce | {"id": prefix[-1]}).items()}
        publish(b'{"amount": 1.10}', headers=headers, content_type="application/json")
    document = json.dumps(ce | {"id": "structured", "data": 0}).replace('"data": 0', '"data": {"n" :9007199254740993}')
    publish(document.encode(), content_type="application/cloudevents+json; charset=utf-8")
    encoded = ce | {"id": "batched-2", "data_base64": "AP8=", "datacontenttype": "image/x"}
    batch = json.dumps([ce | {"id": "batched-1", "data": "text", "datacontenttype": "text/plain"}, encoded])
    publish(batch.encode(), content_type="application/cloudevents-batch+json")
    publish(b"plain", message_id="plain", type="t", timestamp=1767225600, headers={"subject": "s-1"}, content_type="text/plain")
    start()

    wait_for(lambda: len(attributes(database)) == 6)
    bodies = dict(database.rows("SELECT convert_from(attributes, 'UTF8')::json->>'id', body FROM content"))

    assert {
        ":": b'{"amount": 1.10}',
        "_": b'{"amount": 1.10}',
        "structured": b'{"n" :9007199254740993}',
        "batched-1": b"text",
        "batched-2": b"\x00\xff",
        "plain": b"plain",
    } == bodies
    assert {
        "id": "plain",
        "source": "orders",
        "specversion": "1.0",
        "subject": "s-1",
        "type": "t",
        "time": "2026-01-01T00:00:00Z",
        "datacontenttype": "text/plain",
    } == by_id(database)["plain"]
    assert "/up" == by_id(database)["structured"]["origin"]
    assert [(6,)] == database.rows("SELECT count(*) FROM delivery WHERE state = 'pending'")


def test_what_cannot_be_admitted_is_kept_with_its_reason_and_body_and_acked(database, start, publish, channel) -> None:
    database.add_source("tiny", "amqp", max_body=10)
    publish(b"1", key="nobody.orders", message_id="a", headers={"subject": "s"})
    publish(b"2", key="acme.nothing", message_id="a", headers={"subject": "s"})
    publish(b"3", headers={"subject": "s"})
    publish(b"4", message_id="a", headers={"subject": 4})
    publish(b"5" * 11, key="acme.tiny", message_id="a", headers={"subject": "s"})
    publish(b"{no json", content_type="application/cloudevents+json")
    publish(b"7", key="acme.hooks", message_id="a", headers={"subject": "s"})
    publish(b"8", exchange=RECEIVED, message_id="a", headers={"subject": "s\x00"})
    publish(b"good", message_id="good", headers={"subject": "s"})
    start()

    wait_for(lambda: len(buried(database)) == 8)
    wait_for(lambda: channel.queue_declare(INBOX, passive=True).method.message_count == 0)

    assert [
        ("admit", "unknown_tenant"),
        ("admit", "unknown_source"),
        ("admit", "missing_id"),
        ("admit", "malformed"),
        ("admit", "too_large"),
        ("admit", "malformed"),
        ("admit", "wrong_kind"),
        ("admit", "wrong_kind"),
    ] == buried(database)
    assert ["good"] == list(by_id(database))
    headers, body = database.rows("SELECT headers, body FROM dead_letter WHERE reason = 'malformed' ORDER BY id")[1]
    assert b"{no json" == body
    assert {"headers": {}, "properties": {}, "trusted": False} == {**headers, "properties": {}}


def test_what_came_through_the_receivers_exchange_is_believed(database, start, publish) -> None:
    headers = {"cloudEvents:id": "hook-1", "cloudEvents:subject": "s", "cloudEvents:type": "t", "cloudEvents:source": "hooks"}
    publish(b"{}", key="acme.hooks", exchange=RECEIVED, headers=headers)
    start()

    wait_for(lambda: by_id(database))

    assert "hooks" == by_id(database)["hook-1"]["source"]


def test_one_poisoned_message_is_buried_alone_and_the_others_of_its_batch_are_recorded(database, start, publish) -> None:
    with database.connect() as owner:
        owner.execute(
            "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF NEW.body = 'poison' THEN RAISE EXCEPTION 'cannot be stored'; END IF; RETURN NEW; END $$"
        )
        owner.execute("CREATE TRIGGER poison BEFORE INSERT ON content FOR EACH ROW EXECUTE FUNCTION poison()")
    for n in range(50):
        publish(b"poison" if n == 33 else b"fine", message_id=f"e-{n}", headers={"subject": f"s-{n % 5}"})
    start()

    wait_for(lambda: len(attributes(database)) == 49 and buried(database))

    assert [("append", "poison")] == buried(database)
    assert [("e-33", "cannot be stored")] == database.rows("SELECT event_id, detail FROM dead_letter")


def test_a_duplicate_of_other_content_is_counted_and_told_once(database, start, publish) -> None:
    port = free_port()
    start(WAXSEAL_METRICS_PORT=str(port))
    publish(b"first", message_id="e-1", headers={"subject": "s"})
    wait_for(lambda: by_id(database))
    for body in (b"first", b"second", b"third"):
        publish(body, message_id="e-1", headers={"subject": "s"})

    wait_for(lambda: 'waxseal_dedupe_conflicts_total{source="amqp"} 2.0' in metrics_of(port))

    told = "SELECT operator_event.kind, tenant, name, detail FROM operator_event JOIN source ON source.id = source_id"
    wait_for(lambda: database.rows(told))
    ((kind, tenant, source, detail),) = database.rows(told)
    assert ("duplicate_differs", "acme", "orders") == (kind, tenant, source)
    assert re.search(r"differs=body recorded=[0-9a-f]{32} arrived=[0-9a-f]{32}", detail)
    assert [(b"first",)] == database.rows("SELECT body FROM content")


def test_a_new_source_and_a_new_endpoint_take_effect_without_a_restart(database, start, publish) -> None:
    start()
    publish(b"1", message_id="before", headers={"subject": "s"})
    wait_for(lambda: by_id(database))
    database.add_source("later", "amqp")
    database.add_endpoint("second", "http://127.0.0.1:2/")
    publish(b"2", key="acme.later", message_id="after", headers={"subject": "s"})

    wait_for(lambda: "after" in by_id(database))

    assert [(0, 1), (1, 2)] == database.rows("SELECT seq, count(*) FROM delivery GROUP BY seq ORDER BY seq")


def test_a_killed_worker_leaves_nothing_out_and_nothing_twice(database, start, publish) -> None:
    for n in range(2000):
        publish(b"x", message_id=f"e-{n}", headers={"subject": f"s-{n % 7}"})
    victim = start(WAXSEAL_BATCH_SIZE="50", WAXSEAL_PREFETCH="100")
    wait_for(lambda: database.rows("SELECT count(*) FROM entry")[0][0] > 100)
    victim.send_signal(signal.SIGKILL)
    victim.wait(10)
    start()

    wait_for(lambda: database.rows("SELECT count(*) FROM entry")[0][0] >= 2000)
    time.sleep(0.5)

    assert [(2000,)] == database.rows("SELECT count(DISTINCT convert_from(attributes, 'UTF8')::json->>'id') FROM content")
    assert [(2000,)] == database.rows("SELECT count(*) FROM entry")


def test_sigterm_finishes_the_batch_and_hands_back_the_rest(database, start, publish, channel) -> None:
    for n in range(3000):
        publish(b"x", message_id=f"e-{n}", headers={"subject": "s"})
    process = start(WAXSEAL_BATCH_SIZE="100", WAXSEAL_PREFETCH="200")
    wait_for(lambda: database.rows("SELECT count(*) FROM entry")[0][0] > 0)
    process.terminate()

    assert 0 == process.wait(10)
    recorded = database.rows("SELECT count(*) FROM entry")[0][0]
    assert recorded < 3000
    wait_for(lambda: channel.queue_declare(INBOX, passive=True).method.message_count == 3000 - recorded)


def test_the_worker_survives_a_database_that_goes_away(database, start, publish) -> None:
    process = start()
    publish(b"1", message_id="before", headers={"subject": "s"})
    wait_for(lambda: by_id(database))
    with database.connect() as owner:
        owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    publish(b"2", message_id="after", headers={"subject": "s"})

    wait_for(lambda: len(by_id(database)) == 2)

    assert process.poll() is None


def test_sigterm_while_the_database_is_away_hands_back_what_was_not_written(servers, database, start, publish, channel) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database.url)["dbname"]
    process = start()
    publish(b"1", message_id="before", headers={"subject": "s"})
    wait_for(lambda: by_id(database))
    with psycopg.connect(servers.database_url, autocommit=True) as conn:
        conn.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        try:
            conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            for n in range(3):
                publish(b"2", message_id=f"after-{n}", headers={"subject": "s"})
            wait_for(lambda: channel.queue_declare(INBOX, passive=True).method.message_count == 0)
            process.terminate()

            assert 0 == process.wait(20)
            wait_for(lambda: channel.queue_declare(INBOX, passive=True).method.message_count == 3)
        finally:
            conn.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def test_two_workers_share_the_inbox_and_keep_every_chain_whole(database, start, publish) -> None:
    for n in range(1500):
        publish(b"x", message_id=f"e-{n}", headers={"subject": f"s-{n % 3}"})
    for _ in range(2):
        start(WAXSEAL_BATCH_SIZE="20", WAXSEAL_PREFETCH="40")

    wait_for(lambda: database.rows("SELECT count(*) FROM entry")[0][0] == 1500)

    assert [(0, 499, 500)] * 3 == database.rows("SELECT min(seq), max(seq), count(*) FROM entry GROUP BY chain_id")


def test_a_worker_that_is_told_nothing_says_what_it_needs(start) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "ops.cli", "ingest"],
        env={name: value for name, value in environment().items() if not name.startswith("WAXSEAL_")},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd="/",
    )

    assert 2 == process.returncode
    assert "WAXSEAL_DATABASE_URL" in process.stderr
    assert "Traceback" not in process.stderr


def test_the_worker_waits_for_a_database_that_is_not_there_yet(servers, database, start, publish) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database.url)["dbname"]
    publish(b"1", message_id="early", headers={"subject": "s"})
    with psycopg.connect(servers.database_url, autocommit=True) as conn:
        conn.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        process = start()
        time.sleep(2)
        still_there = process.poll() is None
        conn.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    wait_for(lambda: by_id(database))

    assert still_there
