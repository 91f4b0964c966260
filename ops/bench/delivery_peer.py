"""The peer of `bench delivery`: one dramatiq actor per delivery.

It does the same work for each delivery: the same claim fences it, the same statements load and settle it, the same headers are
signed, the same sink is called over kept-alive connections; its connection pool is a plain one. What it lacks is the batch.
Claiming and publishing happen before it starts and are not timed; ours does both within its time.
"""

import http.client
import os
import random
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from sqlalchemy import Engine

from ops.bench.configured_system import plain_engine
from ops.runtime.db import transaction
from ops.runtime.vault import Vault
from ops.settings import Settings, load_settings
from pipeline.claim import Lease, claim_anything
from pipeline.deliver import judge
from pipeline.delivery.signing import RANDOM_BYTES, headers, key_of
from pipeline.settle import settle
from pipeline.store.config import catalog
from pipeline.store.deliveries import deliveries
from schemas.catalog import Catalog
from schemas.delivery import Receipt, Tried
from schemas.endpoint import Endpoint

THREADS = 8
QUEUE = "bench.delivery"
CHUNK = 500


def hand_out(amqp_url: str, engine: Engine) -> int:
    """Claim all due deliveries and publish a message for each; returns how many."""
    import pika  # noqa: PLC0415 - a peer

    broker = _broker(amqp_url)
    actor = _actor(broker)
    broker.declare_queue(QUEUE, ensure=True)
    count, lease, now = 0, uuid4(), datetime.now(UTC)
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
        channel = connection.channel()
        channel.queue_purge(QUEUE)
        while True:
            with transaction(engine) as conn:
                claims = claim_anything(conn, Lease(lease, now, now + timedelta(hours=1)), CHUNK)
            if not claims:
                break
            for claim in claims:
                body = actor.message(claim.id, lease.hex).encode()
                channel.basic_publish("", QUEUE, body, pika.BasicProperties(delivery_mode=2))
            count += len(claims)
    broker.close()
    return count


class _Deliverer:
    """What the threads share, and a kept-alive connection for each."""

    def __init__(self, settings: Settings) -> None:
        self.engine = plain_engine(settings.database_url, THREADS)
        with transaction(self.engine) as conn:
            self.catalog: Catalog = catalog.load(conn, Vault(settings.fernet_keys()).decrypt)
        self._kept = threading.local()

    def deliver(self, delivery_id: int, lease: str) -> None:
        with transaction(self.engine) as conn:
            loaded = deliveries.load_leased(conn, [(delivery_id, UUID(hex=lease))]).deliveries
        for delivery in loaded:
            endpoint = self.catalog.endpoints[delivery.endpoint_id]
            now = datetime.now(UTC)
            keys = [key_of(secret) for secret in endpoint.secrets]
            receipt = self._post(endpoint, headers(delivery, keys, "peer", now, os.urandom(RANDOM_BYTES)), delivery.body)
            verdict = judge(delivery, endpoint, receipt, datetime.now(UTC), random.random())  # noqa: S311 - spreads retries
            with transaction(self.engine) as conn:
                settle(conn, [Tried(delivery, verdict)], datetime.now(UTC))

    def _post(self, endpoint: Endpoint, said: dict[str, str], body: bytes) -> Receipt:
        started, began = datetime.now(UTC), time.monotonic()
        parts = urlsplit(endpoint.url)
        if not hasattr(self._kept, "connection"):
            self._kept.connection = http.client.HTTPConnection(parts.netloc, timeout=endpoint.timeout)
        self._kept.connection.request("POST", parts.path, body, said)
        answer = self._kept.connection.getresponse()
        return Receipt(started, time.monotonic() - began, answer.status, response=answer.read())


def _broker(amqp_url: str) -> Any:
    from dramatiq.brokers.rabbitmq import RabbitmqBroker  # noqa: PLC0415 - a peer

    return RabbitmqBroker(url=amqp_url, confirm_delivery=True)


def _actor(broker: Any, deliverer: _Deliverer | None = None) -> Any:
    import dramatiq  # noqa: PLC0415 - a peer

    def deliver_one(delivery_id: int, lease: str) -> None:
        assert deliverer is not None
        deliverer.deliver(delivery_id, lease)

    return dramatiq.actor(actor_name="deliver_one", queue_name=QUEUE, broker=broker, max_retries=3)(deliver_one)


def main() -> None:
    """Run the actor on threads until SIGTERM."""
    import dramatiq  # noqa: PLC0415 - a peer

    settings = load_settings()
    broker = _broker(settings.amqp_url)
    _actor(broker, _Deliverer(settings))
    worker = dramatiq.Worker(broker, worker_threads=THREADS)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    worker.start()
    stop.wait()
    worker.stop()


if __name__ == "__main__":
    main()
