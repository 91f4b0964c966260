"""The ingest worker between a real broker and a real database; as a process where its start and its end count."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pika
import pytest
from pika.exceptions import AMQPConnectionError
from prometheus_client import REGISTRY

from ops.settings import environment
from schemas.message import PROBE_KEY, PUBLISHED_AT
from support.broker import end_connection, overlooking
from support.queues import consumers, depth
from support.sessions import away, end_connections
from support.waiting import wait_for
from workers.amqp import broker_pulse
from workers.amqp.inbox_probe import InboxProbe
from workers.amqp.topology import INBOX, RECEIVED
from workers.net.answer_deadline import AnswerDeadline

pytestmark = pytest.mark.usefixtures("configured")


@pytest.fixture
def configured(database) -> None:
    database.add_tenant("acme")
    database.add_source("orders", "amqp")
    database.add_source("hooks", "token", "secret")
    database.add_endpoint("billing", "http://127.0.0.1:1/")


def attributes(database) -> list[dict[str, str]]:
    return [json.loads(row[0]) for row in database.rows("SELECT attributes FROM content JOIN entry USING (chain_id, seq)")]


def by_id(database) -> dict[str, dict[str, str]]:
    return {each["id"]: each for each in attributes(database)}


def buried(database) -> list[tuple]:
    return database.rows("SELECT stage, reason FROM dead_letter ORDER BY id")


def test_foreign_messages_of_every_mode_become_entries(database, ingest, publish) -> None:
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
    ingest()

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


def test_what_cannot_be_admitted_is_kept_with_its_reason_and_body_and_acked(database, ingest, publish, channel) -> None:
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
    worker = ingest()

    wait_for(lambda: len(buried(database)) == 8 and by_id(database))
    worker.stop()  # the broker would have back what was not acked

    wait_for(lambda: depth(channel) == 0)
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


def test_what_came_through_the_receivers_exchange_is_believed(database, ingest, publish) -> None:
    headers = {"cloudEvents:id": "hook-1", "cloudEvents:subject": "s", "cloudEvents:type": "t", "cloudEvents:source": "hooks"}
    publish(b"{}", key="acme.hooks", exchange=RECEIVED, headers=headers)
    ingest()

    wait_for(lambda: by_id(database))

    assert "hooks" == by_id(database)["hook-1"]["source"]


@pytest.fixture
def _poison(database) -> Iterator[None]:
    """Makes Postgres refuse the body `poison`."""
    with database.connect() as owner:
        owner.execute(
            "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF NEW.body = 'poison' THEN RAISE EXCEPTION 'cannot be stored'; END IF; RETURN NEW; END $$"
        )
        owner.execute("CREATE TRIGGER poison BEFORE INSERT ON content FOR EACH ROW EXECUTE FUNCTION poison()")
        yield
        owner.execute("DROP FUNCTION poison CASCADE")


@pytest.mark.usefixtures("_poison")
def test_one_poisoned_message_is_buried_alone_and_the_others_of_its_batch_are_recorded(database, ingest, publish) -> None:
    for n in range(50):
        publish(b"poison" if n == 33 else b"fine", message_id=f"e-{n}", headers={"subject": f"s-{n % 5}"})
    ingest()

    wait_for(lambda: len(attributes(database)) == 49 and buried(database))

    assert [("append", "poison")] == buried(database)
    assert [("e-33", "cannot be stored")] == database.rows("SELECT event_id, detail FROM dead_letter")


def test_a_duplicate_of_other_content_is_counted_and_told_once(database, ingest, publish) -> None:
    def conflicts() -> float:
        return REGISTRY.get_sample_value("waxseal_dedupe_conflicts_total", {"source": "amqp"}) or 0.0

    before = conflicts()
    ingest()
    publish(b"first", message_id="e-1", headers={"subject": "s"})
    wait_for(lambda: by_id(database))
    for body in (b"first", b"second", b"third"):
        publish(body, message_id="e-1", headers={"subject": "s"})

    wait_for(lambda: conflicts() == before + 2)

    told = "SELECT operator_event.kind, tenant, name, detail FROM operator_event JOIN source ON source.id = source_id"
    wait_for(lambda: database.rows(told))
    ((kind, tenant, source, detail),) = database.rows(told)
    assert ("duplicate_differs", "acme", "orders") == (kind, tenant, source)
    assert re.search(r"differs=body recorded=[0-9a-f]{32} arrived=[0-9a-f]{32}", detail)
    assert [(b"first",)] == database.rows("SELECT body FROM content")


def test_a_new_source_and_a_new_endpoint_take_effect_without_a_restart(database, ingest, publish) -> None:
    ingest()
    publish(b"1", message_id="before", headers={"subject": "s"})
    wait_for(lambda: by_id(database))
    database.add_source("later", "amqp")
    database.add_endpoint("second", "http://127.0.0.1:2/")
    publish(b"2", key="acme.later", message_id="after", headers={"subject": "s"})

    wait_for(lambda: "after" in by_id(database))

    assert [(0, 1), (1, 2)] == database.rows("SELECT seq, count(*) FROM delivery GROUP BY seq ORDER BY seq")


def test_a_killed_worker_leaves_nothing_out_and_nothing_twice(database, start, ingest, publish) -> None:
    for n in range(300):
        publish(b"x", message_id=f"e-{n}", headers={"subject": f"s-{n % 7}"})
    victim = start("ingest", batch_size=10, prefetch=20)
    wait_for(lambda: database.rows("SELECT count(*) FROM entry")[0][0] > 50)
    victim.send_signal(signal.SIGKILL)
    victim.wait(10)
    worker = ingest()

    wait_for(lambda: database.rows("SELECT count(*) FROM entry")[0][0] >= 300)
    worker.stop()  # whatever it holds has been written

    assert [(300,)] == database.rows("SELECT count(DISTINCT convert_from(attributes, 'UTF8')::json->>'id') FROM content")
    assert [(300,)] == database.rows("SELECT count(*) FROM entry")


def test_sigterm_finishes_the_batches_in_hand_and_hands_back_the_rest(database, start, publish, channel) -> None:
    for n in range(40):
        publish(b"x", message_id=f"e-{n}", headers={"subject": "s"})
    with database.connect() as owner, owner.transaction():
        owner.execute("LOCK TABLE content IN EXCLUSIVE MODE")
        process = start("ingest", batch_size=5, prefetch=10)
        wait_for(lambda: database.rows("SELECT FROM pg_locks WHERE relation = 'content'::regclass AND NOT granted"))
        process.terminate()

    assert 0 == process.wait(30)
    recorded = database.rows("SELECT count(*) FROM entry")[0][0]
    assert recorded in {5, 10}  # one batch is being written, and perhaps the next is ready
    wait_for(lambda: depth(channel) == 40 - recorded)


def test_the_worker_survives_a_database_that_goes_away(database, ingest, publish) -> None:
    worker = ingest()
    publish(b"1", message_id="before", headers={"subject": "s"})
    wait_for(lambda: by_id(database))
    end_connections(database)
    publish(b"2", message_id="after", headers={"subject": "s"})

    wait_for(lambda: len(by_id(database)) == 2)

    assert worker.thread.is_alive()


def test_probes_in_the_midst_of_messages_lose_none_of_them(database, ingest, publish) -> None:
    for number in range(300):
        publish(bytes(20_000), message_id=f"{number}", headers={"subject": "s"})  # so large that more waits on the socket
        if number % 5 == 0:
            publish(b"", PROBE_KEY, RECEIVED, headers={PUBLISHED_AT: repr(time.time())})
    ingest()

    wait_for(lambda: len(attributes(database)) == 300)
    assert {f"{number}" for number in range(300)} == set(by_id(database))


def test_a_broker_that_does_not_answer_is_left_though_its_connection_lives(servers) -> None:
    with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
        AnswerDeadline(connection, 1.5)
        connection.channel()

        with pytest.raises(AMQPConnectionError, match="has not answered for"):
            connection._flush_output(lambda: False)  # as a call waits whose answer never comes


def test_a_worker_leaves_a_broker_that_gives_it_nothing_though_messages_wait(
    database, ingest, servers, publish, channel, monkeypatch
) -> None:
    monkeypatch.setattr(broker_pulse, "LOOK", 0.3)
    ingest(batch_size=1, prefetch=2)
    wait_for(lambda: consumers(channel))
    with overlooking(servers, INBOX):
        for number in range(5):
            publish(b"", message_id=f"{number}", headers={"subject": "s"})

        wait_for(lambda: [f"{number}" for number in range(5)] == list(by_id(database)))


def test_what_a_node_that_pauses_takes_with_it_is_recorded_before_what_comes_later(
    database, ingest, servers, publish, channel, monkeypatch
) -> None:
    """The leader of the inbox counts it as down later, and until then it has a consumer there."""
    monkeypatch.setattr(broker_pulse, "LOOK", 0.6)  # that messages wait meanwhile is no reason to leave
    with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as paused:
        there = paused.channel()
        there.basic_qos(prefetch_count=1)
        there.basic_consume(INBOX, lambda *_: None)
        publish(b"", message_id="1", headers={"subject": "s"})
        wait_for(lambda: depth(channel) == 0)
        worker = ingest()
        wait_for(lambda: consumers(channel) == 2)
        before = worker.ingest._consumer
        end_connection(servers, "waxseal ingest")
        wait_for(lambda: worker.ingest._consumer is not before and worker.ingest.trouble is None)
        after = worker.ingest._consumer
        publish(b"", message_id="2", headers={"subject": "s"})
        time.sleep(2.0)
        assert ({}, after) == (by_id(database), worker.ingest._consumer)

    wait_for(lambda: len(by_id(database)) == 2, 4)  # sooner than it would wait for a consumer that stays
    ids = database.rows("SELECT convert_from(attributes, 'UTF8')::json->>'id' FROM content ORDER BY seq")
    assert [("1",), ("2",)] == ids


def test_a_probe_of_the_inbox_says_how_long_messages_wait_in_it(database, ingest, servers, channel) -> None:
    probe = InboxProbe(servers.amqp_url)
    first = probe()
    wait_for(lambda: probe() > first + 0.1)
    wait_for(lambda: depth(channel) == 1)  # one only, however often the inbox is probed
    assert 0.5 <= first < probe()

    worker = ingest()
    waited: list[float] = []
    wait_for(lambda: waited.append(probe()) or waited[-1] < 0.5)  # the one that waited is answered, and a new one at once

    assert 0 == worker.ingest._held.unacked()
    assert (0, []) == (depth(channel), buried(database))


def test_what_a_worker_holds_shows_how_long_it_has_waited_since_it_was_published(database, ingest, publish, channel) -> None:
    shown = {"queue": "waxseal.ingest"}
    old = {PUBLISHED_AT: repr(time.time() - 100), "cloudEvents:id": "old", "cloudEvents:subject": "s"}
    worker = ingest()
    wait_for(lambda: consumers(channel))
    with database.connect() as conn, conn.transaction():
        conn.execute("LOCK TABLE catalog IN ACCESS EXCLUSIVE MODE")
        publish(b"1", "acme.hooks", RECEIVED, headers=old)
        wait_for(lambda: worker.ingest._held.in_hand)
        for number in range(3):  # of an upstream system, whose word does not count
            publish(b"2", message_id=f"new-{number}", headers={"subject": "s", PUBLISHED_AT: "0"})
        wait_for(lambda: REGISTRY.get_sample_value("waxseal_queue_messages", {**shown, "state": "unacked"}) == 4)
        assert 100 <= REGISTRY.get_sample_value("waxseal_queue_oldest_message_age_seconds", shown) < 200
    wait_for(lambda: worker.ingest._held.unacked() == 0 and len(attributes(database)) == 4)

    assert 0.0 == REGISTRY.get_sample_value("waxseal_stage_oldest_age_seconds", {"stage": "inbox"})


def test_two_workers_share_the_inbox_and_keep_every_chain_whole(database, ingest, publish, channel) -> None:
    for _ in range(2):
        ingest(batch_size=20, prefetch=40)
    wait_for(lambda: consumers(channel) == 2)  # so that each gets every other message
    for n in range(300):
        publish(b"x", message_id=f"e-{n}", headers={"subject": f"s-{n % 3}"})

    wait_for(lambda: database.rows("SELECT count(*) FROM entry")[0][0] == 300)

    assert [(0, 99, 100)] * 3 == database.rows("SELECT min(seq), max(seq), count(*) FROM entry GROUP BY chain_id")


def test_a_worker_that_is_told_nothing_says_what_it_needs() -> None:
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


def test_the_worker_waits_for_a_database_that_is_not_there_yet_and_hands_back_what_it_cannot_write_at_sigterm(
    servers, database, start, publish, channel
) -> None:
    publish(b"1", message_id="early", headers={"subject": "s"})
    with away(servers, database):
        process = start("ingest")
        wait_for(lambda: depth(channel) == 0)  # the worker holds the message
        assert process.poll() is None
    wait_for(lambda: by_id(database))

    with away(servers, database):
        for n in range(3):
            publish(b"2", message_id=f"late-{n}", headers={"subject": "s"})
        wait_for(lambda: depth(channel) == 0)
        process.terminate()

        assert 0 == process.wait(30)
        wait_for(lambda: depth(channel) == 3)
    assert ["early"] == list(by_id(database))
