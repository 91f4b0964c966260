"""The deliver process: a dramatiq worker whose actor hands each batch to the dispatcher and waits for it for a short time.

Dramatiq's threads only wait. Deliveries not settled after half a second go on without a waiting thread or an unacked message,
and for a while no thread waits for their endpoint at all, so an endpoint that hangs holds only places in its own lane. If the
process dies then, the end of the lease returns the delivery, instead of the message.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar
from uuid import UUID

import dramatiq
import structlog
import uvloop

from ops.runtime import open_files
from ops.runtime.blobs import Blobs, open_blobs
from ops.runtime.driver.db_distance import round_trip
from ops.runtime.vault import Vault
from ops.settings import Settings
from ops.telemetry import metrics, table
from ops.telemetry.tracing.switch import current
from pipeline.delivery.breaker import BreakerPolicy
from workers.amqp.broker_pulse import of_rabbitmq
from workers.amqp.dramatiq_broker import ACTOR, POOL, QUEUE, hush_pika, make_broker
from workers.delivery.coalescer import AT_ONCE
from workers.delivery.dispatcher import Dispatcher
from workers.delivery.in_hand import LeasedBatch
from workers.delivery.store import DeliveryStore
from workers.dramatiq_worker import Worker
from workers.live_catalog import CatalogWatch
from workers.net.lease_deadline import lease_end
from workers.net.terms import Terms, terms_of
from workers.process import Process, wait_for_stop
from workers.transports.registry import Senders

PATIENCE: Final = 0.5  # seconds that a thread waits for its batch
TRIPS: Final = 5  # round trips to Postgres that a batch takes besides, with waiting for the batches before it
SLOW: Final = 10.0  # seconds for which no thread waits for an endpoint that was not done within `PATIENCE`
GRACE: Final = 10.0  # seconds for sends in progress when the process stops
SWITCH_INTERVAL: Final = 0.001  # seconds one thread may keep the others waiting
BEAT: Final = 1.0  # seconds
BLOB_SECONDS: Final = 10.0  # to fetch a large body
WORKER_POLL_MS: Final = 250  # between two checks of an idle consumer whether to stop
WORKER_STOP_MS: Final = 5000

_log = structlog.get_logger()
_Result = TypeVar("_Result")


class DeliveryLoop:
    """The event loop in its thread, which runs the dispatcher and the connections, from `open` to `close`."""

    def __init__(
        self, store: DeliveryStore, catalog: CatalogWatch, terms: Terms, blobs: Blobs, *, mail_dns: bool = True
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._mail_dns = mail_dns
        self._catalog = catalog
        self._loop = uvloop.new_event_loop()
        self._senders = Senders(terms)
        self._dispatcher: Dispatcher
        self._slow: dict[int, float] = {}  # endpoint id -> until when no thread waits for it
        self._thread = threading.Thread(target=self._loop.run_forever, name="dispatcher", daemon=True)

    def open(self, beat: Callable[[], None]) -> None:
        """Start the loop; return when it can take batches. Calls `beat` every second while the loop runs."""
        self._thread.start()
        self._call(self._open(beat)).result(10)

    def deliver(self, lease: str, until: float, deliveries: list[tuple[int, int, int]]) -> None:
        """The actor: take a batch and wait for it. `deliveries` are (endpoint id, delivery id, bytes of its body)."""
        whole = until - time.time()
        if whole <= 0:  # the lease has ended, so a relay claims it again, or has done so
            return
        batch = LeasedBatch(
            UUID(hex=lease), lease_end(until), [(endpoint, id_, size) for endpoint, id_, size in deliveries], whole, current()
        )
        began = time.monotonic()
        slow = self._slow_at(began)
        try:
            patience = PATIENCE + TRIPS * round_trip()
            late = self._call(self._dispatcher.take(batch, patience, slow)).result(2 * patience)
        except TimeoutError:
            _log.warning("dispatcher_is_late", deliveries=len(deliveries))
            return
        self._slow.update(dict.fromkeys(late, time.monotonic() + SLOW))
        if late:
            _log.debug("batch_left_to_its_lease", endpoints=sorted(late))

    def _slow_at(self, now: float) -> set[int]:
        """The endpoints that no thread waits for; forgets those that are awaited again."""
        slow = set()
        for endpoint_id, awaited_again in list(self._slow.items()):
            if now < awaited_again:
                slow.add(endpoint_id)
            else:
                self._slow.pop(endpoint_id, None)
        return slow

    @property
    def busy(self) -> bool:
        """Whether any delivery is in hand."""
        return len(self._dispatcher) > 0

    def close(self, grace: float = GRACE) -> None:
        """Let sends finish within `grace` seconds, hand back the rest, and end the thread."""
        self._call(self._close(grace)).result(grace + 30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _call(self, work: Coroutine[Any, Any, _Result]) -> Future[_Result]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _open(self, beat: Callable[[], None]) -> None:
        self._senders.open()
        catalog, send = self._catalog, self._senders.send
        self._dispatcher = Dispatcher(self._store, lambda: catalog.current, send, self._blobs, mail_dns=self._mail_dns)
        self._keep_beating(beat)

    def _keep_beating(self, beat: Callable[[], None]) -> None:
        beat()
        self._loop.call_later(BEAT, self._keep_beating, beat)

    async def _close(self, grace: float) -> None:
        await self._dispatcher.close(grace)
        await self._senders.close()


def run(settings: Settings) -> int:
    """Run one deliver process until SIGTERM or SIGINT. Returns the exit status."""
    with Process(settings, "deliver", "database_url", "amqp_url", "keys", switch_interval=SWITCH_INTERVAL) as process:
        hush_pika()
        open_files.allow()  # each endpoint that hangs may hold `max_in_flight` connections
        engine = process.engine(4 + AT_ONCE)
        catalog = CatalogWatch(engine, Vault(settings.fernet_keys()))
        quick = process.engine(AT_ONCE, keep_plans=True)
        store = DeliveryStore(engine, settings.lease, breaker_policy(settings), quick=quick)
        blobs = open_blobs(settings, BLOB_SECONDS, metrics.observe_blob_call)
        delivery_loop = DeliveryLoop(store, catalog, terms_of(settings), blobs, mail_dns=settings.mail_dns)
        worker = _worker(settings, delivery_loop)
        broker = process.closing(of_rabbitmq(settings, "deliver")).with_work(lambda: _fault_of(worker))
        database = process.database(store.trouble.fault)
        beat = process.serve({"catalog": catalog.ready, "database": database, "broker": broker})
        process.at_end(catalog.stop)
        catalog.start()
        delivery_loop.open(beat)
        while not catalog.wait(0.2) and not process.stop.is_set():
            pass
        worker.start()
        wait_for_stop(process.stop)
        worker.stop(WORKER_STOP_MS)
        delivery_loop.close()
    return process.status


def breaker_policy(settings: Settings) -> BreakerPolicy:
    """The settings' policy for opening breakers and disabling endpoints."""
    return BreakerPolicy(
        ratio=settings.breaker_ratio,
        least=settings.breaker_failures,
        window=settings.breaker_window,
        wait=settings.breaker_wait,
        longest=settings.breaker_longest_wait,
        disable_after=settings.disable_after,
    )


def _worker(settings: Settings, delivery_loop: DeliveryLoop) -> Worker:
    broker = make_broker(settings)
    dramatiq.actor(actor_name=ACTOR, queue_name=QUEUE, broker=broker)(delivery_loop.deliver)
    table.WORKER_THREADS.labels(POOL).set(settings.delivery_threads)
    return Worker(broker, worker_threads=settings.delivery_threads, worker_timeout=WORKER_POLL_MS)


def _fault_of(worker: Worker) -> str | None:
    """Why the worker consumes nothing at the moment, or None."""
    consumer = getattr(worker.consumers.get(QUEUE), "consumer", None)
    connection = getattr(consumer, "connection", None)
    return None if connection is not None and connection.is_open else "not connected to the broker"
