"""The peers of `bench ingest`: the same work as one dramatiq actor per event, as one Celery task per event, and the floor.

The peers call the same `append` as we do, for one event at a time, and acknowledge after COMMIT: what they lack is the batch.
They have a plain connection pool, and prefetch as many messages as an ingest process does.
"""

import base64
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pika
from sqlalchemy import Engine

from ops.bench.configured_system import plain_engine
from ops.bench.load import events
from ops.runtime.db import transaction
from ops.runtime.vault import Vault
from ops.settings import Settings, load_settings
from pipeline.admit import admit
from pipeline.append import append
from pipeline.chain import extend_all
from pipeline.fanout import Subscriptions, plan, subscriptions
from pipeline.store.config import catalog
from pipeline.store.deliveries import deliveries, notify
from pipeline.store.ledger import entries as ledger_entries
from schemas.catalog import Catalog
from schemas.message import Message

THREADS = 8
QUEUE = "bench"
CELERY_QUEUE = "bench-celery"
BATCH = 1000


def fill_inbox(amqp_url: str, count: int) -> None:
    """Publish `count` events to the inbox and return when all are there."""
    from workers.amqp.topology import IN, INBOX  # noqa: PLC0415 - imported lazily: `ops` may not import a worker otherwise

    _fill(amqp_url, INBOX, ((IN, "bench.orders", body, _properties(headers)) for body, headers in events(count)), count)


def fill_dramatiq(amqp_url: str, count: int) -> None:
    """Publish `count` events as messages to an actor."""
    import dramatiq  # noqa: PLC0415 - a peer

    broker = _dramatiq_broker(amqp_url)
    dramatiq.set_broker(broker)
    actor = dramatiq.actor(actor_name="record", queue_name=QUEUE)(_record_one)
    broker.declare_queue(QUEUE, ensure=True)
    encoded = (actor.message(*_packed(body, headers)).encode() for body, headers in events(count))
    _fill(amqp_url, QUEUE, (("", QUEUE, body, _properties()) for body in encoded), count)
    broker.close()


def fill_celery(amqp_url: str, count: int) -> None:
    """Publish `count` events as calls of a task."""
    app = _celery_app(amqp_url)
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        app.amqp.queues[CELERY_QUEUE].bind(connection.default_channel).declare()
        connection.default_channel.queue_purge(CELERY_QUEUE)
        for body, headers in events(count):
            app.send_task("record", _packed(body, headers), producer=producer, queue=CELERY_QUEUE)


def run_dramatiq(settings: Settings) -> None:
    """Run the actor on threads until SIGTERM; dramatiq reads its prefetch from the environment."""
    import dramatiq  # noqa: PLC0415 - a peer

    broker = _dramatiq_broker(settings.amqp_url)
    dramatiq.set_broker(broker)
    dramatiq.actor(actor_name="record", queue_name=QUEUE, max_retries=3)(_record_one)
    worker = dramatiq.Worker(broker, worker_threads=THREADS)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    worker.start()
    stop.wait()
    worker.stop()


def run_celery(settings: Settings) -> None:
    """Run the task on threads until SIGTERM, with late acknowledgement, because nothing may be lost."""
    app = _celery_app(settings.amqp_url, settings.prefetch)
    app.task(_record_one, name="record")
    options = [
        f"--hostname=peer-{os.getpid()}@%h",
        "--pool=threads",
        f"--concurrency={THREADS}",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
    ]
    app.worker_main(["worker", f"--queues={CELERY_QUEUE}", "--loglevel=WARNING", *options])


def run_floor(settings: Settings) -> None:
    """Consume, and COPY rows that were made beforehand, a thousand to a transaction, or a tenth of them if that is less.

    Prints how many messages it has taken at the first batch that reaches each of the counts in its arguments.
    """
    from workers.amqp.topology import INBOX  # noqa: PLC0415 - imported lazily: `ops` may not import a worker otherwise

    count, *marks = (int(argument) for argument in sys.argv[2:])
    prepared = _Prepared(settings)
    size = min(BATCH, count // 10)
    batches = list(prepared.batches(count, size))
    connection = pika.BlockingConnection(pika.URLParameters(settings.amqp_url))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=settings.prefetch)
    for taken, (method, _properties, _body) in enumerate(channel.consume(INBOX), 1):
        if taken % size == 0:
            prepared.store(batches[taken // size - 1])
            channel.basic_ack(method.delivery_tag, multiple=True)
            if marks and taken >= marks[0]:
                del marks[0]
                sys.stdout.write(f"{taken}\n")
                sys.stdout.flush()
        if taken == count:
            break
    connection.close()


class _Prepared:
    """Rows that only have to be copied: they were chained beforehand, on chains of their own."""

    def __init__(self, settings: Settings) -> None:
        self.engine, self.catalog = _engine_and_catalog(settings)
        self._now = datetime.now(UTC)

    def batches(self, count: int, size: int) -> Iterator[tuple[list[Any], list[Any]]]:
        admitted = [_event(body, dict(headers), self.catalog, self._now) for body, headers in events(count)]
        renamed = {event.chain_key: os.urandom(16) for event in admitted}
        subjects = {renamed[event.chain_key]: (event.tenant, event.subject) for event in admitted}
        with transaction(self.engine) as conn:
            ledger_entries.make_chains(conn, subjects, os.urandom(16 * len(subjects)))
            made = ledger_entries.lock_heads(conn, subjects)
        heads = {key: made[renamed[key]] for key in renamed}
        subscribed = subscriptions(self.catalog)
        for first in range(0, count, size):
            batch = admitted[first : first + size]
            entries, moved = extend_all(heads, batch, 0, os.urandom(32 * len(batch)))
            heads |= moved
            yield entries, plan(entries, subscribed)

    def store(self, batch: tuple[list[Any], list[Any]]) -> None:
        with transaction(self.engine) as conn:
            ledger_entries.insert_entries(conn, batch[0])
            notify.send(conn, deliveries.insert_planned(conn, batch[1], self._now))


_state: dict[str, tuple[Engine, Catalog, Subscriptions]] = {}


def _record_one(body: str, headers: dict[str, str]) -> None:
    """Take one event along the whole route, in one transaction, as a task per event does."""
    if "here" not in _state:
        engine, known = _engine_and_catalog(load_settings())
        _state["here"] = engine, known, subscriptions(known)
    engine, known, subscribed = _state["here"]
    now = datetime.now(UTC)
    event = _event(base64.b64decode(body), headers, known, now)
    with transaction(engine) as conn:
        append(conn, [event], subscribed, now)


def _event(body: bytes, headers: dict[str, str], known: Catalog, now: datetime) -> Any:
    return admit(Message("bench.orders", body, "application/json", None, headers), known, now)[0]


def _engine_and_catalog(settings: Settings) -> tuple[Engine, Catalog]:
    engine = plain_engine(settings.database_url, THREADS)
    with transaction(engine) as conn:
        return engine, catalog.load(conn, Vault(settings.fernet_keys()).decrypt)


def _packed(body: bytes, headers: Any) -> tuple[str, dict[str, str]]:
    return base64.b64encode(body).decode(), dict(headers)


def _properties(headers: Any = None) -> pika.BasicProperties:
    return pika.BasicProperties(content_type="application/json", headers=headers, delivery_mode=2)


def _fill(amqp_url: str, queue: str, messages: Iterator[tuple[str, str, bytes, pika.BasicProperties]], count: int) -> None:
    from workers.amqp.topology import declare  # noqa: PLC0415 - imported lazily: `ops` may not import a worker otherwise

    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
        channel = connection.channel()
        declare(channel)
        channel.queue_purge(queue)
        for exchange, key, body, properties in messages:
            channel.basic_publish(exchange, key, body, properties)
        deadline = time.monotonic() + 60
        while channel.queue_declare(queue, passive=True).method.message_count < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"queue {queue} did not fill")
            connection.sleep(0.1)


def _dramatiq_broker(amqp_url: str) -> Any:
    from dramatiq.brokers.rabbitmq import RabbitmqBroker  # noqa: PLC0415 - a peer

    return RabbitmqBroker(url=amqp_url, confirm_delivery=True)


def _celery_app(amqp_url: str, prefetch: int = THREADS) -> Any:
    from celery import Celery  # noqa: PLC0415 - a peer

    app = Celery("peer", broker=amqp_url)
    app.conf.update(
        task_acks_late=True,
        task_ignore_result=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=max(1, prefetch // THREADS),
    )
    return app


if __name__ == "__main__":
    {"dramatiq": run_dramatiq, "celery": run_celery, "floor": run_floor}[sys.argv[1]](load_settings())
