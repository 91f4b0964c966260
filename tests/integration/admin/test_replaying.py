"""Replays through real processes: dead letters of every stage are delivered under their old id, whatever fails on the way."""

import json
import signal
import struct
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from sqlalchemy import make_url

from ops.runtime.blobs import Blobs
from ops.runtime.db import make_engine, transaction
from pipeline.bury import dead_letter_of
from pipeline.store.dead_letters import dead_letters
from schemas.message import Message, Opaque
from support.deliveries import event, record
from support.ingest import running
from support.queues import depth
from support.sending import SECRET
from support.waiting import wait_for
from workers.amqp import header_tables
from workers.amqp.topology import IN, INBOX, RECEIVED, declare

Publish = Callable[..., None]
Ingest = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def channel(channel: BlockingChannel) -> BlockingChannel:
    header_tables.install()
    declare(channel)
    channel.queue_purge(INBOX)
    channel.confirm_delivery()
    return channel


@pytest.fixture
def publish(channel) -> Publish:
    def publish(body: bytes, key: str = "acme.orders", exchange: str = IN, **properties: object) -> None:
        channel.basic_publish(exchange, key, body, pika.BasicProperties(delivery_mode=2, **properties), mandatory=True)

    return publish


@pytest.fixture(autouse=True)
def _orders(database) -> None:
    database.add_tenant("acme")
    database.add_source("orders", "amqp")


@pytest.fixture
def ingest(servers, database, channel, tmp_path) -> Ingest:
    """Records what is published inside the block."""
    return lambda: running(database, servers.amqp_url, Blobs(str(tmp_path / "blobs")))


def count(database, query: str) -> int:
    return database.rows(f"SELECT count(*) FROM {query}")[0][0]


def recorded(database) -> list[str]:
    return sorted(json.loads(row[0])["id"] for row in database.rows("SELECT attributes FROM content"))


def test_what_stopped_at_every_stage_is_replayed_to_its_end_under_the_same_id(cli, start, publish, sink, database) -> None:
    database.add_endpoint("billing", sink.url("/refusing"), SECRET, retry=[])
    with database.connect() as owner:
        owner.execute(
            "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF NEW.body = 'poison' THEN RAISE EXCEPTION 'cannot be stored'; END IF; RETURN NEW; END $$"
        )
        owner.execute("CREATE TRIGGER poison BEFORE INSERT ON content FOR EACH ROW EXECUTE FUNCTION poison()")
    publish(b"too early", key="acme.later", message_id="admit", headers={"subject": "s-1"})
    publish(b"poison", message_id="append", headers={"subject": "s-2"})
    publish(b"refused", message_id="deliver", headers={"subject": "s-3"})
    for worker in ("ingest", "relay", "deliver"):
        start(worker)
    wait_for(lambda: count(database, "dead_letter") == 3)
    refused, tries = sink.ids(), len(sink.requests)
    sink.release()
    with database.connect() as owner:
        owner.execute("DROP FUNCTION poison CASCADE")
    database.add_source("later", "amqp")

    told = cli.json("dead", "replay", "--all", "--yes", "--by", "ada")
    wait_for(lambda: count(database, "delivery WHERE state = 'delivered'") == 3)

    assert {("admit", 1), ("append", 1), ("deliver", 1)} == {(each["stage"], each["count"]) for each in told[:-1]}
    assert {"replayed": 3, "counted": 3} == told[-1]
    assert ["admit", "append", "deliver"] == recorded(database)
    assert 3 == len(sink.ids())
    assert refused.items() <= (sink.ids() - refused).items()
    assert {b"too early", b"poison", b"refused"} == {request.body for request in sink.requests[tries:]}
    assert [("replayed", "ada")] * 3 == database.rows("SELECT state, decided_by FROM dead_letter")
    assert [(1, "dead"), (2, "delivered")] == database.rows(
        "SELECT n, outcome FROM attempt JOIN delivery ON id = delivery_id WHERE attempts = 2 ORDER BY n"
    )
    assert [("dead replay", 3)] == [(act["act"], act["done"]) for act in cli.json("audit")]


def test_what_nothing_can_be_made_of_is_one_dead_letter_that_counts_until_somebody_decides(
    cli, start, engine, sink, database
) -> None:
    endpoint = database.add_endpoint("billing", sink.url("/500"), SECRET, retry=["soon"])
    record(engine, [event("e-1"), event("e-2")], [endpoint])
    start("relay", lease=1.5)
    start("deliver", lease=1.5)
    wait_for(lambda: count(database, "dead_letter WHERE attempts >= 2") == 2)
    one, other = cli.json("dead", "list", "--stage", "actor")
    assert {"state": "open", "reason": "internal", "error": "TypeError", "endpoint": "billing"}.items() <= one.items()
    assert one["first_at"] < one["last_at"]

    cli.json("dead", "discard", "--id", one["id"], "--yes")
    database.run("UPDATE endpoint SET url = %s, settings = '{}' WHERE id = %s", sink.url("/200"), endpoint)
    probe = database.add_endpoint("probe", sink.url("/200/probe"), SECRET)
    record(engine, [event("probe")], [probe])
    wait_for(lambda: any(each.path == "/200/probe" for each in sink.requests))  # by a process that knows the new address
    cli.json("dead", "replay", "--id", other["id"], "--yes")
    wait_for(lambda: count(database, f"delivery WHERE state = 'delivered' AND endpoint_id = {endpoint}") == 1)

    assert [("delivered",), ("discarded",)] == database.rows(
        "SELECT state FROM delivery WHERE endpoint_id = %s ORDER BY state", endpoint
    )
    assert [("discarded",), ("replayed",)] == database.rows("SELECT state FROM dead_letter ORDER BY state")


def bury(database, messages: list[Message]) -> None:
    engine = make_engine(database.worker_url, pool_size=1)
    with transaction(engine) as conn:
        dead_letters.bury(
            conn, [dead_letter_of(each, "admit", "unknown_source", "not yet") for each in messages], datetime.now(UTC)
        )
    engine.dispose()


def numbered(count: int) -> list[Message]:
    return [Message("acme.orders", b"%d" % n, headers={"subject": f"s-{n % 3}"}, message_id=f"e-{n}") for n in range(count)]


def test_a_replay_that_was_killed_is_resumed_by_the_same_command(cli, ingest, channel, database) -> None:
    bury(database, numbered(60))
    command = ("dead", "replay", "--reason", "unknown_source", "--yes")
    with cli.process(*command, "--rate", "2/s") as victim:
        wait_for(lambda: count(database, "dead_letter WHERE state = 'replayed'") >= 2)
        victim.send_signal(signal.SIGKILL)
        victim.wait(10)
    before = count(database, "dead_letter WHERE state = 'replayed'")
    (told,) = cli.json(*command)[-1:]

    assert 2 <= before < 60
    assert {"replayed": 60 - before, "counted": 60 - before} == told
    assert 0 == count(database, "dead_letter WHERE state = 'open'")
    assert 60 <= depth(channel) <= 61  # the chunk in progress, of one, may have been published twice
    last, first = cli.json("audit")
    assert (60, None, 60 - before) == (first["planned"], first["done"], last["done"])

    with ingest():
        wait_for(lambda: not depth(channel) and count(database, "entry") >= 60)
    assert sorted(f"e-{n}" for n in range(60)) == recorded(database)


def test_ctrl_c_ends_a_replay_with_its_count_in_the_audit(cli, channel, database) -> None:
    bury(database, numbered(60))
    with cli.process("dead", "replay", "--all", "--yes", "--rate", "2/s") as process:
        wait_for(lambda: count(database, "dead_letter WHERE state = 'replayed'") >= 2)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)

    assert (130, "Interrupted.\n") == (process.returncode, told.lstrip("\n"))
    assert [(60, count(database, "dead_letter WHERE state = 'replayed'"))] == [
        (act["planned"], act["done"]) for act in cli.json("audit")
    ]


def test_a_replay_keeps_to_its_rate(cli, channel, database) -> None:
    bury(database, numbered(30))
    began = time.monotonic()
    cli.json("dead", "replay", "--all", "--yes", "--rate", "20/s")
    took = time.monotonic() - began

    assert 1.4 <= took < 60
    assert 30 == depth(channel)


def test_a_message_comes_again_exactly_as_it_came(cli, ingest, publish, channel, database) -> None:
    headers: dict[str, Any] = {
        "text": "naïve \u2028 \x00",
        "bytes": b"\x00\xff\xfe",
        "float": 1.5,
        "integer": 2**62,
        "negative": -3,
        "yes": True,
        "nothing": None,
        "decimal": Decimal("1.10").normalize(),
        "time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "far": Opaque(b"T" + struct.pack(">Q", 2**60)),
        "deep": Opaque(nested(100)),
        "list": [1, "two", [b"\xff", {"k": None}]],
        "table": {"$bytes": 1, "k\x00": {"x": 0.25}},
        "\udcff": "a name that is not UTF-8",
    }
    properties = {
        "content_type": "text/plain; charset=x",
        "content_encoding": "gzip",
        "message_id": "m-1\x00",
        "type": "t",
        "timestamp": 2**40,
        "priority": 7,
        "correlation_id": "c-1\x00",
        "reply_to": "answers",
        "app_id": "till",
    }
    for exchange, key in ((IN, "acme.nothing"), (RECEIVED, "nobody.no\x00thing"), (IN, "\udcfe")):
        publish(b"\x00\xffbody", key=key, exchange=exchange, headers=headers, **properties)
    with ingest():
        wait_for(lambda: count(database, "dead_letter") == 3)
    wait_for(lambda: depth(channel) == 0)

    cli.json("dead", "replay", "--all", "--yes")
    wait_for(lambda: depth(channel) == 3)

    for exchange, key in ((IN, "acme.nothing"), (RECEIVED, "nobody.no\x00thing"), (IN, "\udcfe")):
        method, found, body = channel.basic_get(INBOX, auto_ack=True)
        assert (exchange, key, b"\x00\xffbody") == (method.exchange, method.routing_key, body)
        assert read(headers) == {name: value for name, value in found.headers.items() if name != "x-delivery-count"}
        assert properties == {name: getattr(found, name) for name in properties}
        assert 2 == found.delivery_mode


def test_a_replayed_message_is_of_the_user_who_published_it(cli, ingest, publish, database) -> None:
    ours = make_url(cli.environment["WAXSEAL_AMQP_URL"]).username
    forged = {"waxseal-user": ours, "subject": "s"}
    publish(b"1", key="acme.bound", message_id="ours", user_id=ours, headers={"subject": "s"})
    publish(b"2", key="acme.bound", message_id="forged", headers=forged)
    with ingest():
        wait_for(lambda: count(database, "dead_letter") == 2)
    database.add_source("bound", "amqp", users=[ours])

    cli.json("dead", "replay", "--all", "--yes")
    with ingest():
        wait_for(lambda: count(database, "dead_letter") == 3 and recorded(database))

    assert ["ours"] == recorded(database)
    assert [("forged", "wrong_user")] == database.rows("SELECT event_id, reason FROM dead_letter WHERE state = 'open'")
    assert [(False, ours)] == database.rows(
        "SELECT headers -> 'trusted', headers -> 'headers' ->> 'waxseal-user' FROM dead_letter WHERE state = 'open'"
    )


def test_what_a_message_may_not_have_again_is_kept_for_reading_and_does_not_hinder_its_replay(
    cli, ingest, publish, channel, database
) -> None:
    ours = make_url(cli.environment["WAXSEAL_AMQP_URL"]).username
    publish(b"body", key="acme.nothing", message_id="m-1", user_id=ours, expiration="3600000", priority=3)
    bury(database, [Message("acme.nothing", b"other", message_id="m-2", others={"user_id": "somebody", "expiration": "0"})])
    with ingest():
        wait_for(lambda: count(database, "dead_letter") == 2)
    kept = [cli.json("dead", "show", id)[0]["headers"]["properties"] for id in (1, 2)]

    cli.json("dead", "replay", "--all", "--yes")
    wait_for(lambda: depth(channel) == 2)

    assert {"message_id": "m-2", "user_id": "somebody", "expiration": "0"} == kept[0]
    expected = {"message_id": "m-1", "user_id": ours, "expiration": "3600000", "priority": 3, "delivery_mode": 2}
    assert expected == kept[1]
    taken = [channel.basic_get(INBOX, auto_ack=True) for _ in range(2)]
    found = {body: given for _method, given, body in taken}
    assert {(RECEIVED, ours), (RECEIVED, "somebody")} == {
        (method.exchange, given.headers["waxseal-user"]) for method, given, _body in taken
    }
    assert {b"body": (None, None, 3, 2), b"other": (None, None, None, 2)} == {
        body: (each.user_id, each.expiration, each.priority, each.delivery_mode) for body, each in found.items()
    }


def nested(depth: int) -> bytes:
    """AMQP tables nested `depth` deep."""
    table = b"V"
    for _ in range(depth):
        inner = b"\x01n" + table
        table = b"F" + struct.pack(">I", len(inner)) + inner
    return table


def read(headers: dict[str, Any]) -> dict[str, Any]:
    """The headers as they are read: from the deepest readable level on, a table stays opaque."""
    value: Any = Opaque(nested(100 - header_tables.DEEPEST))
    for _ in range(header_tables.DEEPEST):
        value = {"n": value}
    return {**headers, "deep": value}


def test_nothing_is_marked_while_the_broker_is_away(cli, database, monkeypatch) -> None:
    monkeypatch.setattr("workers.commands.republish.PATIENCE", 0.3)
    bury(database, numbered(3))
    away = cli.but(amqp_url="amqp://nobody:nothing@127.0.0.1:1/").run("dead", "replay", "--all", "--yes")
    unset = cli.but(amqp_url="").run("dead", "replay", "--all", "--yes")

    assert (2, 2) == (away.exit_code, unset.exit_code)
    assert "the broker does not take messages" in away.stderr
    assert "WAXSEAL_AMQP_URL" in unset.stderr
    assert "Traceback" not in away.stderr + unset.stderr
    assert 3 == count(database, "dead_letter WHERE state = 'open'")
    assert [(3, 0), (3, 0)] == [(act["planned"], act["done"]) for act in cli.json("audit")]


def test_deliveries_are_replayed_without_a_broker(database, cli, engine) -> None:
    endpoint = database.add_endpoint("billing", "http://127.0.0.1:1/")
    record(engine, [event("e-1")], [endpoint])
    with database.connect() as conn:
        conn.execute("UPDATE delivery SET state = 'dead', next_attempt_at = NULL, settled_at = now()")
        conn.execute(
            "INSERT INTO dead_letter (stage, reason, detail, delivery_id, endpoint_id, first_at, last_at)"
            " VALUES ('deliver', 'exhausted', '', 1, %s, now(), now())",
            (endpoint,),
        )

    assert {"replayed": 1, "counted": 1} == cli.but(amqp_url="").json("dead", "replay", "--endpoint", "billing", "--yes")[-1]
    assert [("pending",)] == database.rows("SELECT state FROM delivery")


HOSTILE: list[dict[str, Any]] = [
    {"h": Opaque(b"T" + struct.pack(">Q", 2**63))},
    {"h": Opaque(nested(3000))},
    {"\udcff": 1, "subject": "s"},
    {"cloudEvents:id": 1.5},
]


def test_no_message_stops_the_ingest_worker(start, publish, database) -> None:
    process = start("ingest")
    for n, hostile in enumerate(HOSTILE):
        publish(b"hostile", key="\udcff.\udcff", headers=hostile, message_id="\udcff")
        publish(b"hostile", headers=hostile, message_id="\udcff")
        publish(b"fine", headers={"subject": "s"}, message_id=f"fine-{n}")

        wait_for(lambda n=n: f"fine-{n}" in recorded(database))
        wait_for(lambda n=n: count(database, "dead_letter") == 2 * (n + 1))
    assert process.poll() is None


def test_moved_up_tries_are_made_at_once(cli, start, sink, engine, database) -> None:
    endpoint = database.add_endpoint("billing", sink.url("/500"), SECRET, retry=[3600, 3600])
    record(engine, [event("e-1")], [endpoint])
    for worker in ("relay", "deliver"):
        start(worker)
    wait_for(lambda: count(database, "delivery WHERE attempts = 1 AND state = 'pending'") == 1)
    (listed,) = cli.json("deliveries", "acme")
    assert datetime.fromisoformat(listed["next_attempt_at"]) > datetime.now(UTC) + timedelta(minutes=50)

    cli.json("retry", "acme", "--yes")

    wait_for(lambda: count(database, "delivery WHERE attempts = 2") == 1)
    assert [2] == list(sink.ids().values())
