"""The mail-pull process: a scheduler that enqueues the pulls that are due, and dramatiq workers that run them.

One message is one bounded batch, which enqueues the next if there is more. Postgres holds which mailboxes are due and who pulls
them: a message that is lost, repeated or late does no harm. Mailboxes that fail or are slow have a few threads of their own, so
that the others never wait for them.
"""

import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import dramatiq
import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from ops.runtime.blobs import open_blobs
from ops.runtime.db import Engine, transaction
from ops.runtime.vault import Vault
from ops.settings import Settings
from ops.telemetry import metrics, table
from pipeline.store.mail import leases as mail_leases
from workers.amqp.dramatiq_broker import MAIL_QUEUES, hush_pika, make_broker
from workers.amqp.publisher_thread import PublisherThread
from workers.dramatiq_worker import Worker
from workers.mail.oauth.tokens import Tokens
from workers.mail.pull.publish import MailIntake
from workers.mail.pull.puller import Puller
from workers.mail.pull.sessions import Sessions
from workers.process import Process, wait_for_stop

POOL: Final = "mail-pull"
QUEUE, SLOW_QUEUE = MAIL_QUEUES
SLOW_THREADS: Final = 4
LOST: Final = timedelta(seconds=60)  # after which a message that has not led to a pull counts as lost
AT_ONCE: Final = 500  # mailboxes enqueued by one look
LOOK: Final = 0.5  # seconds between two looks for due mailboxes
ALIVE: Final = 1.0  # seconds between two heartbeats of the process
BEAT: Final = 5.0  # seconds between two extensions of the leases; a sixth of their length
SWEEP: Final = 10.0
THREAD_TURN: Final = 0.002
WORKER_TURN_MS: Final = 250
WORKER_STOP_MS: Final = 8000  # a batch that is not finished by then is repeated

_log = structlog.get_logger()


class PullQueue:
    """Enqueues pulls as dramatiq messages. Safe to use from any thread."""

    def __init__(self, engine: Engine, brokers: Mapping[str, RabbitmqBroker], puller: Puller) -> None:
        """`brokers` by queue: a dramatiq worker consumes all queues of its broker."""
        self._engine = engine
        self._puller = puller
        self._actor = dramatiq.actor(actor_name="pull", queue_name=QUEUE, broker=brokers[QUEUE])(self.pull)
        self._slow = dramatiq.actor(actor_name="pull_slow", queue_name=SLOW_QUEUE, broker=brokers[SLOW_QUEUE])(self.pull)
        self.trouble: str | None = None  # why the last look failed

    def pull(self, mailbox_id: int, *, going_on: bool = False) -> None:
        """The actor: runs one batch, and enqueues the next if there is more."""
        if self._puller.pull(mailbox_id, going_on=going_on) == "more":
            self._send(self._actor, [mailbox_id], going_on=True)

    def look(self) -> None:
        """Enqueue the mailboxes that are due."""
        try:
            now = datetime.now(UTC)
            with transaction(self._engine) as conn:
                due = mail_leases.due(conn, now, now - LOST, AT_ONCE)
            self._send(self._actor, [each.id for each in due if not each.slow])
            self._send(self._slow, [each.id for each in due if each.slow])
            self.trouble = None
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look tries again
            self.trouble = f"{type(error).__name__}: {str(getattr(error, 'orig', None) or error)[:200]}"
            _log.warning("look_failed", error=self.trouble)

    def _send(self, actor: dramatiq.Actor[..., Any], ids: Sequence[int], *, going_on: bool = False) -> None:
        for place, id_ in enumerate(ids):
            try:
                actor.send(id_, going_on=going_on)
            except Exception as error:  # noqa: BLE001 - dramatiq tried six times, and the mailboxes stay due
                _log.warning("pulls_not_asked_for", mailboxes=len(ids) - place, error=repr(error)[:200])
                with transaction(self._engine) as conn:
                    mail_leases.unasked(conn, ids[place:])
                return


def run(settings: Settings) -> int:
    """Run one mail-pull process until SIGTERM or SIGINT. Returns the exit status."""
    with Process(settings, "mail-pull", "database_url", "amqp_url", "keys", switch_interval=THREAD_TURN) as process:
        hush_pika()
        logging.getLogger("apscheduler").setLevel(logging.WARNING)  # it logs two lines for each look
        pulling = Pulling(settings, process.engine(min(settings.mail_threads + SLOW_THREADS, 20) + 3))
        beat = process.serve({"database": process.database(pulling.database), "broker": pulling.broker})
        process.closing(pulling)
        pulling.start(beat)
        wait_for_stop(process.stop)
        pulling.stop()
    return process.status


class Pulling:
    """The scheduler, the dramatiq workers and the connections of one process, from construction to `close`."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        threads = settings.mail_threads
        self._engine = engine
        self._publisher = PublisherThread(settings.amqp_url, POOL)
        vault = Vault(settings.fernet_keys())
        self._sessions = Sessions(Tokens(self._engine, vault).of)
        intake = MailIntake(self._publisher, open_blobs(settings, called=metrics.observe_blob_call))
        owner = f"{socket.gethostname()}/{os.getpid()}/{uuid4().hex[:8]}"
        self._puller = Puller(self._engine, vault, self._sessions, intake, owner)
        brokers = {queue: make_broker(settings, POOL) for queue in MAIL_QUEUES}
        self._queue = PullQueue(self._engine, brokers, self._puller)
        self._workers = [
            Worker(brokers[queue], worker_threads=count, worker_timeout=WORKER_TURN_MS)
            for queue, count in ((QUEUE, threads), (SLOW_QUEUE, SLOW_THREADS))
        ]
        table.WORKER_THREADS.labels(POOL).set(threads + SLOW_THREADS)
        self._scheduler = BackgroundScheduler(
            timezone=UTC, executors={"default": ThreadPoolExecutor(4)}, job_defaults={"coalesce": True, "max_instances": 1}
        )

    def start(self, beat: Callable[[], None]) -> None:
        """Begin. Calls `beat` for as long as the scheduler runs."""
        for worker in self._workers:
            worker.start()
        # A job of its own: a look may wait for a broker that hangs, which is no reason to kill the process.
        self._scheduler.add_job(beat, "interval", seconds=ALIVE, next_run_time=datetime.now(UTC))
        self._scheduler.add_job(self._queue.look, "interval", seconds=LOOK, next_run_time=datetime.now(UTC))
        self._scheduler.add_job(self._puller.beat, "interval", seconds=BEAT)
        self._scheduler.add_job(self._sessions.sweep, "interval", seconds=SWEEP)
        self._scheduler.start()

    def stop(self) -> None:
        """Start no more batches, and wait some seconds for the running ones."""
        self._stop_scheduler()
        for worker in self._workers:
            worker.stop(WORKER_STOP_MS // len(self._workers))
        self._puller.let_go()

    def close(self) -> None:
        """Close all sessions and connections."""
        self._stop_scheduler()
        self._sessions.sweep(everything=True)
        self._publisher.close()

    def database(self) -> str | None:
        """Why Postgres is unavailable; None if it is not."""
        return self._puller.trouble.fault() or self._queue.trouble

    def broker(self) -> str | None:
        """Why the broker is unavailable for publishing or consuming; None if it is not."""
        for worker in self._workers:
            for consumer in worker.consumers.values():
                connection = getattr(getattr(consumer, "consumer", None), "connection", None)
                if connection is None or not connection.is_open:
                    return "not connected to the broker"
        return self._publisher.trouble()

    def _stop_scheduler(self) -> None:
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
