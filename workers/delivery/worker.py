"""The deliver process: a dramatiq worker whose actor hands each batch to the dispatcher and waits for it, but not for ever.

Dramatiq's threads only wait. What has not been settled after half a second goes on without its thread and its message, and for
a while nobody waits for its endpoint at all, so one that hangs holds places in its own lane and nothing else. Should the
process die then, the lease brings the delivery back, instead of the message.
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

from ops.runtime.blobs import Blobs, open_blobs
from ops.runtime.vault import Vault
from ops.settings import Settings
from ops.telemetry import metrics
from pipeline.delivery.breaker import BreakerPolicy
from workers.amqp.broker_pulse import of_rabbitmq
from workers.amqp.dramatiq_broker import ACTOR, POOL, QUEUE, hush_pika, make_broker
from workers.delivery.dispatcher import Dispatcher
from workers.delivery.in_hand import LeasedBatch
from workers.delivery.store import DeliveryStore
from workers.live_catalog import CatalogWatch
from workers.net.lease_deadline import lease_end
from workers.net.terms import Terms, terms_of
from workers.process import Process
from workers.transports.registry import Senders

PATIENCE: Final = 0.5  # seconds that a thread waits for its batch
SLOW: Final = 10.0  # seconds for which nobody waits for the batches of an endpoint that somebody waited for in vain
GRACE: Final = 10.0  # seconds for what is being sent when the process is to stop
SWITCH_INTERVAL: Final = 0.001  # seconds one thread may keep the others waiting
BEAT: Final = 1.0  # seconds
BLOB_SECONDS: Final = 10.0  # for a large body to be fetched
WORKER_TURN_MS: Final = 250  # for which an idle thread of dramatiq's does not look whether it is to stop
WORKER_STOP_MS: Final = 5000

_log = structlog.get_logger()
_Result = TypeVar("_Result")


class DeliveryLoop:
    """The event loop in its thread, with the dispatcher and the connections on it, from `open` to `close`."""

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
        self._slow: dict[int, float] = {}  # endpoint id -> until when nobody waits for its batches
        self._thread = threading.Thread(target=self._loop.run_forever, name="dispatcher", daemon=True)

    def open(self, beat: Callable[[], None]) -> None:
        """Begin; batches can be taken. Calls `beat` every second for as long as the loop turns."""
        self._thread.start()
        self._call(self._open(beat)).result(10)

    def deliver(self, lease: str, until: float, deliveries: list[tuple[int, int, int]]) -> None:
        """Take a batch and wait for it: the actor. `deliveries` are (endpoint id, delivery id, bytes of its body)."""
        whole = until - time.time()
        if whole <= 0:  # its lease has ended, so it is claimed again, or has been
            return
        batch = LeasedBatch(
            UUID(hex=lease), lease_end(until), [(endpoint, id_, size) for endpoint, id_, size in deliveries], whole
        )
        began = time.monotonic()
        slow = {each for each, awaited_again in list(self._slow.items()) if began < awaited_again}
        try:
            late = self._call(self._dispatcher.take(batch, PATIENCE, slow)).result(2 * PATIENCE)
        except TimeoutError:
            _log.warning("dispatcher_is_late", deliveries=len(deliveries))
            return
        self._slow.update(dict.fromkeys(late, time.monotonic() + SLOW))
        if late:
            _log.debug("batch_left_to_its_lease", endpoints=sorted(late))

    @property
    def busy(self) -> bool:
        """Whether anything is in hand."""
        return len(self._dispatcher) > 0

    def close(self, grace: float = GRACE) -> None:
        """Finish what is being sent within `grace` seconds, hand back the rest, and end the thread."""
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
        engine = process.engine(5)
        catalog = CatalogWatch(engine, Vault(settings.fernet_keys()))
        quick = process.engine(1, keep_plans=True)
        store = DeliveryStore(engine, settings.lease, breaker_policy(settings), quick=quick)
        blobs = open_blobs(settings, BLOB_SECONDS)
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
        process.stop.wait()
        worker.stop(WORKER_STOP_MS)
        delivery_loop.close()
    return process.status


def breaker_policy(settings: Settings) -> BreakerPolicy:
    """When breakers open and endpoints are given up, as the settings say."""
    return BreakerPolicy(
        ratio=settings.breaker_ratio,
        least=settings.breaker_failures,
        window=settings.breaker_window,
        wait=settings.breaker_wait,
        longest=settings.breaker_longest_wait,
        disable_after=settings.disable_after,
    )


def _worker(settings: Settings, delivery_loop: DeliveryLoop) -> dramatiq.Worker:
    broker = make_broker(settings)
    dramatiq.actor(actor_name=ACTOR, queue_name=QUEUE, broker=broker)(delivery_loop.deliver)
    metrics.WORKER_THREADS.labels(POOL).set(settings.delivery_threads)
    return dramatiq.Worker(broker, worker_threads=settings.delivery_threads, worker_timeout=WORKER_TURN_MS)


def _fault_of(worker: dramatiq.Worker) -> str | None:
    """Why nothing is consumed just now, if that is so."""
    consumer = getattr(worker.consumers.get(QUEUE), "consumer", None)
    connection = getattr(consumer, "connection", None)
    return None if connection is not None and connection.is_open else "not connected to the broker"
