"""The metrics of the whole system: one elected process reads and exposes them."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from urllib.request import urlopen

import pika
import psycopg
import pytest
from pika.exceptions import AMQPError
from prometheus_client import REGISTRY
from sqlalchemy import text

from ops.runtime.db import make_engine, transaction
from ops.telemetry import table
from ops.telemetry.collector import Broker, Collector
from pipeline.store.admin import counts, verifications
from pipeline.store.dead_letters import dead_letters
from schemas.dead_letter import DeadLetter
from schemas.ledger.fault import Verified
from support.cli import Cli
from support.deliveries import event, record
from support.net.ports import free_port
from support.sessions import end_connections
from support.waiting import wait_for
from workers.amqp.queue_depths import depths, queues
from workers.amqp.topology import INBOX, declare

NOW = datetime.now(UTC)
QUEUE = "waxseal.deliver"


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"waxseal_{name}", labels)


def nothing() -> dict[str, tuple[int, int] | None]:
    return {}


def at_once() -> float:
    return 0.0


@pytest.fixture
def collector(database) -> Iterator[Callable[..., Collector]]:
    made = []
    for gauge in (table.OLDEST_SECONDS, table.QUEUE_OLDEST_SECONDS):
        gauge.clear()  # an ingest worker of another test, in this process, has given them a function

    def collector(queues=nothing, probe=at_once) -> Collector:
        made.append(Collector(database.worker_url, Broker(queues, probe, QUEUE, INBOX), lease=90.0))
        return made[-1]

    yield collector
    for each in made:
        each.close()


def test_what_waits_is_counted_with_its_age(collector, engine) -> None:
    now = datetime.now(UTC)
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(3)], [1], now - timedelta(seconds=90))
    record(engine, [event(f"f-{n}", f"t-{n}") for n in range(2)], [2], now + timedelta(hours=1))
    with transaction(engine) as conn:
        dead_letters.bury(conn, [DeadLetter("admit", "malformed", "x")] * 2, now - timedelta(hours=2))
        dead_letters.bury(conn, [DeadLetter("append", "poison", "x")], now - timedelta(hours=1))
        dead_letters.bury(conn, [DeadLetter("append", "poison", "x")], now - timedelta(hours=9))
        dead_letters.decide(conn, [4], "discarded", now, "ada")
    collector().turn()

    assert (3, 2) == (value("retries_due", when="overdue"), value("retries_due", when="future"))
    assert 90 <= value("queue_oldest_message_age_seconds", queue=QUEUE) < 150
    assert [2, 1, 0, 0] == [value("dead_letters", queue=stage) for stage in ("admit", "append", "deliver", "actor")]
    assert 7200 <= value("dead_letter_oldest_age_seconds", queue="admit") < 7260
    assert 3600 <= value("dead_letter_oldest_age_seconds", queue="append") < 3660
    assert 0 == value("dead_letter_oldest_age_seconds", queue="deliver")
    assert 1 == value("collector_up", collector="database")
    assert time.time() - value("collector_last_success_timestamp_seconds", collector="database") < 60


def test_what_is_planned_for_later_is_not_old(collector, engine) -> None:
    record(engine, [event("e-1")], [1], NOW + timedelta(hours=1))
    collector().turn()

    assert 0 == value("queue_oldest_message_age_seconds", queue=QUEUE)


def age(stage: str) -> float | None:
    return value("stage_oldest_age_seconds", stage=stage)


def test_each_stage_shows_how_long_the_oldest_has_waited_and_leaves_out_what_endpoints_hold_back(
    collector, engine, database
) -> None:
    now = datetime.now(UTC)
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(6)], [1], now - timedelta(seconds=100))
    record(engine, [event("h", "held")], [2], now - timedelta(seconds=5000))
    with database.connect() as conn:
        conn.execute("UPDATE delivery SET attempts = 1, next_attempt_at = now() - interval '50 s' WHERE id = 1")
        conn.execute(
            "UPDATE delivery SET state = 'leased', next_attempt_at = NULL, lease = gen_random_uuid(),"
            " lease_until = now() + interval '30 s', attempts = id - 2 WHERE id IN (2, 3)"
        )
        conn.execute("UPDATE delivery SET created_at = now() - interval '300 s' WHERE id IN (2, 3)")
        conn.execute("SET session_replication_role = replica")  # endpoint 2 itself is not needed
        conn.execute(
            "INSERT INTO endpoint_health (endpoint_id, breaker, opened_at, probe_at) VALUES (2, 'open', now(), now())"
            " ON CONFLICT (endpoint_id) DO UPDATE SET breaker = 'open', opened_at = now(), probe_at = now()"
        )
    with transaction(engine) as conn:
        dead_letters.bury(conn, [DeadLetter("admit", "malformed", "x")], now - timedelta(hours=2))
    counting = collector(probe=lambda: 7.5)
    counting.turn()

    assert 100 <= age("unclaimed") < 200
    assert 50 <= age("retries") < 100
    assert 300 <= age("in_flight") < 400
    assert 7200 <= age("dead_letters") < 7300
    assert (7.5, 0.0) == (age("inbox"), age("mail"))
    assert 5000 <= value("queue_oldest_message_age_seconds", queue=QUEUE) < 5100
    with database.connect() as conn:
        conn.execute("UPDATE delivery SET attempts = 1 WHERE state = 'leased'")
    counting.turn()
    assert 60 <= age("in_flight") < 100  # a second try, since its lease was taken or renewed


def test_the_ledger_is_shown_with_what_its_last_verification_found(collector, database, engine) -> None:
    began = datetime.now(UTC) - timedelta(hours=1)
    intact, broken = Verified(entries=7, chains=2, faults=0), Verified(entries=9, chains=2, faults=3)
    counting = collector()
    counting.turn()
    assert 0 == value("chain_verify_last_success_timestamp_seconds")
    record(engine, [event("e-1"), event("e-2")])
    owner = make_engine(database.url)
    with transaction(owner) as conn:
        verifications.note(conn, intact, began, began)
        verifications.note(conn, broken, began, datetime.now(UTC))
    owner.dispose()
    counting.turn()

    assert (9, 3) == (value("chain_verified_sequence", chain="all"), value("chain_broken_links", chain="all"))
    assert value("chain_verify_last_success_timestamp_seconds") == pytest.approx(began.timestamp())
    assert 0 <= value("chain_head_sequence", chain="all")


def test_with_postgres_away_the_broker_is_read_all_the_same(collector, database) -> None:
    asked = []
    cut = collector(lambda: asked.append("queues") or {}, lambda: float(asked.append("inbox") or 1))
    cut.turn()
    with database.connect() as conn:
        conn.execute("ALTER TABLE dead_letter RENAME TO moved")
        with pytest.raises(Exception, match="dead_letter"):
            cut.turn()
        conn.execute("ALTER TABLE moved RENAME TO dead_letter")

    assert ["queues", "inbox"] * 2 == asked
    assert (0, 1) == (value("collector_up", collector="database"), value("collector_up", collector="inbox"))


def test_one_is_elected_and_the_others_show_nothing_until_it_ends(collector) -> None:
    first, second = collector(), collector()
    first.turn()
    first.turn()
    second.turn()  # in the same process, so it clears the first one's gauges

    assert None is value("retries_due", when="overdue")
    assert None is value("dead_letters", queue="admit")
    assert None is value("collector_up", collector="database")
    first.turn()
    assert 0 == value("retries_due", when="overdue")

    first.close()

    def elected() -> bool:
        second.turn()
        return value("collector_up", collector="database") == 1

    wait_for(elected)  # Postgres releases the lock when it has ended the first one's session


def test_a_collector_that_goes_blind_says_so_and_keeps_its_last_figures(collector, engine, database) -> None:
    record(engine, [event("e-1")])
    blind = collector()
    blind.turn()
    seen = value("collector_last_success_timestamp_seconds", collector="database")
    with database.connect() as conn:
        conn.execute("ALTER TABLE dead_letter RENAME TO moved")
        with pytest.raises(Exception, match="dead_letter"):
            blind.turn()
        assert (0, seen, 1) == (
            value("collector_up", collector="database"),
            value("collector_last_success_timestamp_seconds", collector="database"),
            value("retries_due", when="overdue"),
        )
        conn.execute("ALTER TABLE moved RENAME TO dead_letter")
    blind.turn()

    assert 1 == value("collector_up", collector="database")


def test_a_collector_that_was_cut_off_comes_back(collector, database) -> None:
    cut = collector()
    cut.turn()
    end_connections(database)
    with pytest.raises(Exception, match="terminat"):
        cut.turn()
    assert 0 == value("collector_up", collector="database")
    cut.turn()

    assert 1 == value("collector_up", collector="database")


def test_no_reading_takes_longer_than_its_deadline(collector, database, monkeypatch) -> None:
    monkeypatch.setattr("ops.telemetry.collector._STATEMENT_SECONDS", 0.5)
    collector().turn()
    slow = collector()
    with psycopg.connect(database.url) as conn:
        conn.execute("SELECT count(*) FROM delivery")

        def locked() -> None:
            with transaction(slow._engine) as other:
                other.execute(text("SELECT pg_sleep(30)"))

        began = time.monotonic()
        with pytest.raises(Exception, match="statement timeout"):
            locked()
    assert time.monotonic() - began < 20


def test_decisions_are_counted_once_when_none_can_commit_before_them_any_more(collector, engine) -> None:
    def replayed() -> float:
        return value("dead_letter_replays_total", result="replayed") or 0.0

    counting, before = collector(), replayed()
    with transaction(engine) as conn:
        dead_letters.bury(conn, [DeadLetter("admit", "malformed", "x")] * 4, NOW)
        dead_letters.decide(conn, [1, 2], "replayed", datetime.now(UTC) - timedelta(seconds=80), "ada")
        dead_letters.decide(conn, [3], "replayed", datetime.now(UTC), "ada")
        dead_letters.decide(conn, [4], "discarded", datetime.now(UTC) - timedelta(seconds=80), "ada")
    counting.turn()
    assert before == replayed()
    counting._counted -= timedelta(hours=1)
    with transaction(engine) as conn:
        conn.execute(text("UPDATE dead_letter SET decided_at = decided_at - interval '20 s'"))
    counting.turn()
    counting.turn()

    assert before + 2 == replayed()


def test_the_queues_are_those_of_the_broker(collector, servers) -> None:
    with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
        channel = connection.channel()
        declare(channel)
        channel.queue_purge(INBOX)
        channel.confirm_delivery()
        for _ in range(3):
            channel.basic_publish("", INBOX, b"x", mandatory=True)
        wait_for(lambda: queues(servers.amqp_url)[INBOX] == (3, 0))
        collector(lambda: queues(servers.amqp_url)).turn()
        found = (value("queue_messages", queue=INBOX, state="ready"), value("queue_consumers", queue=INBOX))
        counted = depths(servers.amqp_url)[INBOX]
        channel.queue_purge(INBOX)

    assert ((3, 0), 3) == (found, counted)
    assert 1 == value("collector_up", collector="broker")


def test_a_queue_that_may_not_be_asked_for_is_not_a_missing_one(servers, channel, monkeypatch) -> None:
    channel.queue_declare("locked", exclusive=True)
    monkeypatch.setattr("workers.amqp.queue_depths.QUEUES", ("missing", "locked"))

    with pytest.raises(AMQPError, match="RESOURCE_LOCKED"):
        queues(servers.amqp_url)

    channel.queue_delete("locked")
    assert {"missing": None, "locked": None} == queues(servers.amqp_url)


def test_a_broker_that_is_away_leaves_the_other_figures(collector) -> None:
    with pytest.raises(AMQPError):
        collector(lambda: queues("amqp://nobody:nothing@127.0.0.1:1/")).turn()

    assert (1, 0) == (value("collector_up", collector="database"), value("collector_up", collector="broker"))


def test_the_figures_are_read_from_indexes_that_hold_nothing_else(database, engine) -> None:
    with database.connect() as conn:
        conn.execute(
            "INSERT INTO delivery (endpoint_id, tenant, chain_id, seq, size, state, created_at, settled_at)"
            " SELECT 1, 'acme', gen_random_uuid(), 0, 1, 'delivered', now(), now() FROM generate_series(1, 3000)"
        )
        conn.execute(
            "INSERT INTO dead_letter (stage, state, reason, detail, first_at, last_at, decided_at, decided_by)"
            " SELECT 'admit', 'discarded', 'x', '', now(), now(), now() - interval '9 d', 'ada' FROM generate_series(1, 3000)"
        )
        conn.execute("VACUUM ANALYZE delivery")
        conn.execute("VACUUM ANALYZE dead_letter")
    with transaction(engine) as conn:
        plans = "\n".join(
            line
            for statement in (counts.PENDING, counts.OPEN_DEAD_LETTERS, counts.DECISIONS, counts.OLDEST_LEASED)
            for line in conn.execute(
                text("EXPLAIN " + statement.text),
                {"now": NOW, "after": NOW - timedelta(seconds=30), "until": NOW, "lease": 90.0},
            ).scalars()
        )

    assert "Seq Scan on delivery" not in plans
    assert "Seq Scan on dead_letter" not in plans
    assert "Index Only Scan using delivery_by_due" in plans


def test_a_relay_makes_partitions_and_shows_the_figures(servers, database, engine) -> None:
    record(engine, [event("e-1")], [1], NOW + timedelta(hours=1))
    tomorrow = f"attempt_{NOW + timedelta(days=1):%Y%m%d}"
    with database.connect() as conn:
        conn.execute(f"DROP TABLE {tomorrow}")
    port = free_port()
    with Cli(database, servers.amqp_url, metrics_port=port).process("relay"):

        def shown() -> bool:
            try:
                text = urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
            except OSError:
                return False
            return 'waxseal_retries_due{when="future"} 1.0' in text and 'waxseal_collector_up{collector="broker"} 1.0' in text

        wait_for(shown)
        assert [(tomorrow,)] == database.rows("SELECT relname FROM pg_class WHERE relname = %s", tomorrow)
