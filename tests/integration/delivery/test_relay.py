"""Relay and deliver as processes, between a real broker and a real database: which failures they survive."""

import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from urllib.request import urlopen
from uuid import uuid4

import dramatiq
from pika.adapters.blocking_connection import BlockingChannel

from ops.settings import Settings
from schemas.delivery import Claim
from support.broker import Cable
from support.deliveries import claimed, event, record
from support.net.ports import free_port
from support.queues import depth
from support.sessions import end_connections
from support.waiting import wait_for
from workers.amqp.dramatiq_broker import DELIVER_TOPOLOGY, QUEUE, envelope, make_broker


def counts(database) -> dict[str, int]:
    return dict(database.rows("SELECT state, count(*) FROM delivery GROUP BY 1"))


def ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=3) as answer:
            return json.load(answer)["ready"]
    except OSError:
        return False


def finished(port: int) -> float:
    """How many messages the actor has finished."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return 0
    return sum(float(line.split()[-1]) for line in lines if line.startswith("waxseal_actor_messages_total{"))


def queued(channel: BlockingChannel) -> list[dict]:
    """Empties the queue; returns the messages' arguments."""
    messages = []
    while True:
        method, _properties, body = channel.basic_get(QUEUE, auto_ack=True)
        if method is None:
            return messages
        messages.append(dramatiq.Message.decode(body).kwargs)


def ids(messages: list[dict]) -> Counter[int]:
    return Counter(id for message in messages for _endpoint, id, _size in message["deliveries"])


def test_what_is_planned_is_sent_at_once_and_both_processes_end_when_they_are_told_to(
    database, engine, sink, endpoint, start, lateness
) -> None:
    endpoint("/200")
    ports = {name: free_port() for name in ("relay", "deliver")}
    processes = [start(name, metrics_port=port) for name, port in ports.items()]
    wait_for(lambda: all(ready(port) for port in ports.values()))
    time.sleep(1.1)  # right after a poll, so that none is due soon

    delays = []
    for n in range(5):
        planned = time.monotonic()
        record(engine, [event(f"e-{n}")])
        wait_for(lambda n=n: len(sink.requests) == n + 1)
        delays.append(time.monotonic() - planned)
    wait_for(lambda: counts(database) == {"delivered": 5})
    asked = time.monotonic()
    for process in processes:
        process.terminate()

    assert min(delays) < 0.4 + lateness(), "a poll brings it within a second; a notification at once"
    assert [0, 0] == [process.wait(60) for process in processes]
    assert time.monotonic() - asked < 5 + lateness()


def test_a_worker_killed_while_it_sends_repeats_under_the_same_id_and_counts_once(
    database, engine, sink, endpoint, start
) -> None:
    endpoint("/hang", timeout=30)
    record(engine, [event("e-1")])
    start("relay")
    first = start("deliver")
    wait_for(lambda: sink.requests)

    first.kill()
    first.wait()
    start("deliver", lease=90)
    wait_for(lambda: len(sink.requests) == 2)
    sink.release()

    wait_for(lambda: counts(database) == {"delivered": 1})
    assert {"e-1": 2} == sink.ids()
    assert [(1, 1)] == database.rows("SELECT attempts, (SELECT count(*) FROM attempt) FROM delivery")


def test_a_worker_killed_long_after_it_left_the_message_repeats_when_the_lease_ends(
    database, engine, sink, endpoint, start
) -> None:
    endpoint("/hang", timeout=30)
    record(engine, [event("e-1")])
    start("relay", lease=4)
    first = start("deliver", lease=4)
    wait_for(lambda: sink.requests)
    time.sleep(1)  # longer than a thread waits

    first.kill()
    first.wait()
    start("deliver", lease=4)
    wait_for(lambda: len(sink.requests) == 2)
    sink.release()

    wait_for(lambda: counts(database) == {"delivered": 1})
    assert {"e-1": 2} == sink.ids()


def test_messages_that_are_stale_strange_or_broken_are_harmless(database, engine, sink, endpoint, start, channel) -> None:
    endpoint("/200")
    record(engine, [event("e-1")])
    publish = [
        b"no json",
        b"{}",
        envelope(uuid4(), time.time() + 90, [Claim(1, 1, 2)]).body,
        envelope(uuid4(), time.time() - 5, [Claim(1, 1, 2)]).body,
        envelope(uuid4(), time.time() + 90, [Claim(987, 654, 3)]).body,
        dramatiq.Message(QUEUE, "deliver", ("?",), {}, {}).encode(),
        dramatiq.Message(QUEUE, "unheard of", (), {}, {}).encode(),
    ]
    for body in publish:
        channel.basic_publish("", QUEUE, body)

    port = free_port()
    start("deliver", metrics_port=port)
    wait_for(lambda: finished(port) == 4)  # the actor gets only those that can be read and name it
    assert [] == sink.requests
    start("relay")

    wait_for(lambda: counts(database) == {"delivered": 1})
    assert {"e-1": 1} == sink.ids()


def test_a_lost_queue_costs_nothing_but_time(database, engine, sink, endpoint, start, channel) -> None:
    endpoint("/200", max_in_flight=60)
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(120)])
    start("relay", lease=3)
    wait_for(lambda: depth(channel, QUEUE) == 2)

    channel.queue_delete(QUEUE)
    start("deliver", lease=3)

    wait_for(lambda: counts(database) == {"delivered": 120})
    assert {f"e-{n}": 1 for n in range(120)} == sink.ids()
    assert [(1,)] == database.rows("SELECT DISTINCT attempts FROM delivery")


def test_two_relays_never_hand_out_the_same_delivery(database, engine, endpoint, start, channel) -> None:
    endpoints = [endpoint(path, max_in_flight=1000) for path in ("/200", "/201", "/202", "/203")]
    ports = free_port(), free_port()
    started = [start("relay", max_leased=100_000, metrics_port=port) for port in ports]
    wait_for(lambda: all(ready(port) for port in ports))
    for batch in range(8):
        record(engine, [event(f"e-{batch}-{n}", f"s-{n}") for n in range(50)], endpoints)
    messages: list[dict] = []
    wait_for(lambda: messages.extend(queued(channel)) or len(ids(messages)) >= 1600)
    time.sleep(0.3)  # for one that comes twice
    messages += queued(channel)

    assert {"leased": 1600} == counts(database)
    assert {1} == set(ids(messages).values())
    assert 2 <= len({message["lease"] for message in messages})
    assert [None, None] == [process.poll() for process in started]


def test_no_more_is_leased_than_allowed(database, engine, endpoint, start, channel) -> None:
    endpoint("/200", max_in_flight=1000)
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(300)])

    start("relay", max_leased=120)
    messages: list[dict] = []
    wait_for(lambda: messages.extend(queued(channel)) or ids(messages).total() >= 120)
    port = free_port()
    start("relay", max_leased=120, metrics_port=port)  # the second counts the first one's leases, too
    wait_for(lambda: ready(port))
    time.sleep(1.1)  # each has polled once more
    messages += queued(channel)

    assert {"leased": 120, "pending": 180} == counts(database)
    assert 120 == ids(messages).total()


def test_deliveries_of_a_broker_that_is_away_wait_and_are_not_counted_as_tries(
    servers, database, engine, sink, endpoint, start
) -> None:
    endpoint("/200")
    ports = {name: free_port() for name in ("relay", "deliver")}
    with Cable(servers.amqp_url) as cable:
        processes = [start(name, metrics_port=port, amqp_url=cable.url) for name, port in ports.items()]
        wait_for(lambda: all(ready(port) for port in ports.values()))

        cable.cut()
        record(engine, [event("e-1")])
        wait_for(lambda: not ready(ports["relay"]) and not ready(ports["deliver"]))
        assert {"pending": 1} == counts(database)
        cable.mend()

        wait_for(lambda: counts(database) == {"delivered": 1}, 60)
        assert [(1,)] == database.rows("SELECT attempts FROM delivery")
        assert [None, None] == [process.poll() for process in processes]


def test_both_processes_outlive_a_database_that_throws_them_out(database, engine, sink, endpoint, start) -> None:
    endpoint("/200")
    processes = [start("relay"), start("deliver")]
    record(engine, [event("e-1")])
    wait_for(lambda: counts(database) == {"delivered": 1})

    for _ in range(3):
        end_connections(database)
        time.sleep(0.3)
    engine.dispose()
    record(engine, [event("e-2")])

    wait_for(lambda: counts(database) == {"delivered": 2})
    assert [None, None] == [process.poll() for process in processes]


def test_a_retry_comes_when_it_is_due_not_a_poll_later(database, engine, sink, endpoint, start, lateness) -> None:
    endpoint("/500", retry=[1.5, 1.5])
    record(engine, [event("e-1")])
    start("relay")
    start("deliver")

    wait_for(lambda: counts(database) == {"dead": 1})

    starts = [started for (started,) in database.rows("SELECT started_at FROM attempt ORDER BY n")]
    gaps = [(after - before).total_seconds() for before, after in pairwise(starts)]
    assert 2 == len(gaps)
    assert all(gap >= 1.5 for gap in gaps)
    assert min(gaps) < 1.5 * 1.1 + 0.3 + lateness()


def test_relay_and_dramatiq_declare_the_same_queues(servers, channel) -> None:
    broker = make_broker(Settings(database_url="", amqp_url=servers.amqp_url))
    broker.declare_queue(QUEUE)

    broker.consume(QUEUE).close()  # raises if the declarations differ
    channel.queue_delete(QUEUE)
    broker.queues_pending.add(QUEUE)
    broker.consume(QUEUE).close()
    for method, arguments in DELIVER_TOPOLOGY:
        getattr(channel, method)(**arguments)

    assert (0, 0) == broker.get_queue_message_counts(QUEUE)[:2]
    broker.close()


def test_a_claim_that_nobody_publishes_is_taken_over_when_its_lease_ends(database, engine, sink, endpoint, start) -> None:
    endpoint("/200")
    record(engine, [event("e-1")])
    claimed(engine, now=datetime.now(UTC), lease_for=timedelta(seconds=1))
    start("relay")
    start("deliver")

    wait_for(lambda: counts(database) == {"delivered": 1})
    assert {"e-1": 1} == sink.ids()
