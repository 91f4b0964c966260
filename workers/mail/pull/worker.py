"""The mail-pull process: a scheduler that asks for the pulls that are due, and dramatiq workers that do them.

One message is one bounded batch, and asks for the next when there is more. That a mailbox is due, and who pulls it, is in
Postgres: a message that is lost, repeated or late does no harm. Mailboxes that fail or are slow are pulled by a few threads of
their own, so that however many hang, the others do not wait for them.
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
from ops.runtime.db import Engine, make_engine, transaction
from ops.runtime.vault import Vault
from ops.settings import Settings
from ops.telemetry import metrics
from pipeline.store.mail import leases as mail_leases
from workers.amqp.dramatiq_broker import MAIL_QUEUES, hush_pika, make_broker
from workers.amqp.publisher_thread import PublisherThread
from workers.mail.oauth.tokens import Tokens
from workers.mail.pull.publish import MailIntake
from workers.mail.pull.puller import Puller
from workers.mail.pull.sessions import Sessions
from workers.process import Process

POOL: Final = "mail-pull"
QUEUE, SLOW_QUEUE = MAIL_QUEUES
SLOW_THREADS: Final = 4
LOST: Final = timedelta(seconds=60)  # after which a message that asked for a pull and came to nothing counts as lost
AT_ONCE: Final = 500  # mailboxes asked for in one look
LOOK: Final = 0.5  # seconds between two looks for what is due
ALIVE: Final = 1.0  # between two signs of life
BEAT: Final = 5.0  # between two extensions of leases; a sixth of what they last
SWEEP: Final = 10.0
THREAD_TURN: Final = 0.002
WORKER_TURN_MS: Final = 250
WORKER_STOP_MS: Final = 8000  # a batch that is not done by then is done again

_log = structlog.get_logger()


class Asking:
    """Asks for pulls, by messages of dramatiq. Safe to use from any thread."""

    def __init__(self, engine: Engine, brokers: Mapping[str, RabbitmqBroker], puller: Puller) -> None:
        """`brokers` by queue: a worker of dramatiq takes everything of its broker."""
        self._engine = engine
        self._puller = puller
        self._actor = dramatiq.actor(actor_name="pull", queue_name=QUEUE, broker=brokers[QUEUE])(self.pull)
        self._slow = dramatiq.actor(actor_name="pull_slow", queue_name=SLOW_QUEUE, broker=brokers[SLOW_QUEUE])(self.pull)
        self.trouble: str | None = None  # why the last look failed

    def pull(self, mailbox_id: int, *, going_on: bool = False) -> None:
        """The actor: one batch, and the next is asked for."""
        if self._puller.pull(mailbox_id, going_on=going_on) == "more":
            self._send(self._actor, [mailbox_id], going_on=True)

    def look(self) -> None:
        """Ask for what is due."""
        try:
            now = datetime.now(UTC)
            with transaction(self._engine) as conn:
                due = mail_leases.due(conn, now, now - LOST, AT_ONCE)
            self._send(self._actor, [each.id for each in due if not each.slow])
            self._send(self._slow, [each.id for each in due if each.slow])
            self.trouble = None
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look is soon
            self.trouble = f"{type(error).__name__}: {str(getattr(error, 'orig', None) or error)[:200]}"
            _log.warning("look_failed", error=self.trouble)

    def _send(self, actor: dramatiq.Actor[..., Any], ids: Sequence[int], *, going_on: bool = False) -> None:
        for place, id_ in enumerate(ids):
            try:
                actor.send(id_, going_on=going_on)
            except Exception as error:  # noqa: BLE001 - dramatiq tried six times, and Postgres knows that it is due
                _log.warning("pulls_not_asked_for", mailboxes=len(ids) - place, error=repr(error)[:200])
                with transaction(self._engine) as conn:
                    mail_leases.unasked(conn, ids[place:])
                return


def run(settings: Settings) -> int:
    """Run one mail-pull process until SIGTERM or SIGINT. Returns the exit status."""
    with Process(settings, "mail-pull", "database_url", "amqp_url", "keys", thread_turn=THREAD_TURN) as process:
        hush_pika()
        logging.getLogger("apscheduler").setLevel(logging.WARNING)  # two lines for each look
        pulling = Pulling(settings)
        beat = process.serve({"database": process.database(pulling.database), "broker": pulling.broker})
        process.closing(pulling)
        pulling.start(beat)
        process.stop.wait()
        pulling.stop()
    return process.status


class Pulling:
    """Everything that pulls in one process, from construction to `close`."""

    def __init__(self, settings: Settings) -> None:
        threads = settings.mail_threads
        self._engine = make_engine(settings.database_url, pool_size=min(threads + SLOW_THREADS, 20) + 3)
        self._publisher = PublisherThread(settings.amqp_url, POOL)
        vault = Vault(settings.fernet_keys())
        self._sessions = Sessions(Tokens(self._engine, vault).of)
        intake = MailIntake(self._publisher, open_blobs(settings))
        owner = f"{socket.gethostname()}/{os.getpid()}/{uuid4().hex[:8]}"
        self._puller = Puller(self._engine, vault, self._sessions, intake, owner)
        brokers = {queue: make_broker(settings, POOL) for queue in MAIL_QUEUES}
        self._asking = Asking(self._engine, brokers, self._puller)
        self._workers = [
            dramatiq.Worker(brokers[queue], worker_threads=count, worker_timeout=WORKER_TURN_MS)
            for queue, count in ((QUEUE, threads), (SLOW_QUEUE, SLOW_THREADS))
        ]
        metrics.WORKER_THREADS.labels(POOL).set(threads + SLOW_THREADS)
        self._scheduler = BackgroundScheduler(
            timezone=UTC, executors={"default": ThreadPoolExecutor(4)}, job_defaults={"coalesce": True, "max_instances": 1}
        )

    def start(self, beat: Callable[[], None]) -> None:
        """Begin. Calls `beat` for as long as the scheduler turns."""
        for worker in self._workers:
            worker.start()
        # Beside the looks: one may wait for a broker that stands still, which is no reason to kill the process.
        self._scheduler.add_job(beat, "interval", seconds=ALIVE, next_run_time=datetime.now(UTC))
        self._scheduler.add_job(self._asking.look, "interval", seconds=LOOK, next_run_time=datetime.now(UTC))
        self._scheduler.add_job(self._puller.beat, "interval", seconds=BEAT)
        self._scheduler.add_job(self._sessions.sweep, "interval", seconds=SWEEP)
        self._scheduler.start()

    def stop(self) -> None:
        """Take nothing more, and finish what is being pulled, for some seconds."""
        self._asking_no_more()
        for worker in self._workers:
            worker.stop(WORKER_STOP_MS // len(self._workers))
        self._puller.let_go()

    def close(self) -> None:
        """Let go of everything."""
        self._asking_no_more()
        self._sessions.sweep(everything=True)
        self._publisher.close()
        self._engine.dispose()

    def database(self) -> str | None:
        """Why Postgres cannot be reached just now, if that is so."""
        return self._puller.trouble.fault() or self._asking.trouble

    def broker(self) -> str | None:
        """Why nothing can be published or consumed just now, if that is so."""
        for worker in self._workers:
            for consumer in worker.consumers.values():
                connection = getattr(getattr(consumer, "consumer", None), "connection", None)
                if connection is None or not connection.is_open:
                    return "not connected to the broker"
        return self._publisher.trouble()

    def _asking_no_more(self) -> None:
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
