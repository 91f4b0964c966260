"""The ingest worker: takes what is in the inbox, as much as is there, and acks it once it is in the ledger.

Two threads: this one reads the broker and admits the next batch while the other has the database busy with the last.
If the process dies, everything not acked is redelivered; what was committed by then is a duplicate.
"""

import queue
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate, islice

import pika
import structlog
from pika.adapters.blocking_connection import BlockingChannel
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError

from ops.runtime.blobs import open_blobs
from ops.runtime.thread_priority import GiveWay
from ops.runtime.vault import Vault
from ops.settings import Settings
from ops.telemetry import metrics
from schemas.message import FIRST_USER, Message
from workers.amqp import header_tables
from workers.amqp.broker_pulse import of_rabbitmq
from workers.ingest.consumer import InboxConsumer
from workers.ingest.watchdog import Watch
from workers.ingest.writer import Judged, Stopped, Writer
from workers.process import Process

log = structlog.get_logger()

MAX_BUFFERED = 32 * 1024 * 1024  # bytes of bodies in hand; beyond it the socket is left unread until a batch is done
MAX_BATCH = 32 * 1024 * 1024  # bytes of bodies in one batch, in the blob store or not, unless one alone is larger
AHEAD = 2  # batches that the writer has at most: one that it writes, and the next if that is whole already
RECONNECT = (0.2, 5.0)  # seconds, first and longest wait
SWITCH_INTERVAL = 0.0001  # seconds one thread may keep the other waiting; the default of 5 ms would idle the database


class Ingest:
    """One consumer of the inbox and the thread that writes for it."""

    def __init__(self, settings: Settings, writer: Writer, stop: threading.Event, give_way: GiveWay, watch: Watch) -> None:
        header_tables.install()
        self._watch = watch
        self._give_way = give_way
        self._settings = settings
        self._writer = writer
        self._stop = stop
        self._connection: pika.BlockingConnection | None = None
        self._channel: BlockingChannel | None = None
        self._consumer: InboxConsumer | None = None
        self._buffer: deque[tuple[int, Judged]] = deque()
        self._buffered = 0  # bytes
        self._in_hand: deque[tuple[int, int]] = deque()  # of each batch that the writer has: its last delivery tag, its bytes
        self._batches: queue.Queue[list[Judged] | None] = queue.Queue(AHEAD + 1)
        self._results: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        self._beat: Callable[[], None] = lambda: None
        self.trouble: str | None = "not connected yet"

    def run(self, beat: Callable[[], None]) -> None:
        """Consumes until the process is to stop; connects again, however often the broker goes away."""
        self._beat = lambda: self._on(beat)
        thread = threading.Thread(target=self._write, name="writer")
        thread.start()
        wait = RECONNECT[0]
        try:
            while not self._stop.is_set():
                self._watch.progress()
                try:
                    self._connect()
                    wait = RECONNECT[0]
                    self._consume()
                except (AMQPError, AMQPConnectorException, OSError) as error:  # the second: a broker that does not greet
                    self.trouble = f"broker: {error!r}"
                    log.warning("broker_lost", error=repr(error), again_in=round(wait, 1))
                    metrics.BROKER_RECONNECTS.labels("consumer").inc()
                    self._stop.wait(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnects, guards nothing
                    wait = min(wait * 2, RECONNECT[1])
        finally:
            self._batches.put(None)
            while thread.is_alive():
                self._watch.progress()
                thread.join(1.0)

    def _on(self, beat: Callable[[], None]) -> None:
        """Says that the loop turns: to the probes, and to the watch, which would end a process that is stuck."""
        beat()
        self._watch.progress()

    def _connect(self) -> None:
        parameters = pika.URLParameters(self._settings.amqp_url)
        parameters.heartbeat = 10
        parameters.socket_timeout = parameters.stack_timeout = 10
        parameters.blocked_connection_timeout = None  # only publishers are blocked
        self._connection = pika.BlockingConnection(parameters)
        prefetch = max(self._settings.prefetch, 2 * self._settings.batch_size)
        self._consumer = InboxConsumer(self._connection, prefetch, self._receive)
        self._channel = self._consumer.channel
        self._buffer.clear()
        self._buffered = 0
        self._drop_result()
        self._consumer.start()
        self.trouble = None

    def _drop_result(self) -> None:
        """Waits out a batch of the connection before: its tags mean nothing on this one, its messages come again."""
        while self._in_hand:
            self._beat()
            with suppress(queue.Empty):
                failure = self._results.get(timeout=1.0)
                self._in_hand.popleft()
                self._raise_failure(failure)

    def _consume(self) -> None:
        assert self._connection is not None
        assert self._consumer is not None
        while not self._stop.is_set():
            self._beat()
            self.trouble = self._consumer.turn()
            if self._buffered < MAX_BUFFERED or not self._in_hand:
                self._connection.process_data_events(time_limit=0.5)
            self._settle(wait=self._buffered >= MAX_BUFFERED)
            self._hand_over()
        self._close()

    def _receive(self, tag: int, redelivered: bool, message: Message) -> None:
        self._give_way.let_pass()
        self._watch.progress()
        if message.trusted and message.headers and FIRST_USER in message.headers:
            message = _as_first_published(message)
        judged = self._writer.judge(message, suspect=redelivered)
        self._buffer.append((tag, judged))
        self._buffered += judged.size

    def _hand_over(self) -> None:
        """Gives the writer all that has arrived, up to a batch, when it has nothing to do: no lingering.

        While it has something to do, a batch is given that would not become larger, so that the database need not wait.
        """
        while self._buffer and (not self._in_hand or self._may_go_ahead()):
            count = min(len(self._buffer), self._settings.batch_size)
            if self._buffered > MAX_BATCH:
                count = _fitting([judged.size for _tag, judged in islice(self._buffer, count)])
            taken = [self._buffer.popleft() for _ in range(count)]
            size = sum(judged.size for _tag, judged in taken)
            self._buffered -= size
            self._in_hand.append((taken[-1][0], size))
            self._batches.put([judged for _tag, judged in taken])

    def _may_go_ahead(self) -> bool:
        """Whether there is a whole batch, and room for it: in bytes, both are no more than one."""
        whole = len(self._buffer) >= self._settings.batch_size
        return whole and len(self._in_hand) < AHEAD and self._buffered + sum(size for _tag, size in self._in_hand) <= MAX_BATCH

    def _settle(self, *, wait: bool) -> None:
        """Acks the batches that were written, if any were, on the channel that they came from."""
        written: int | None = None
        while self._in_hand:
            try:
                failure = self._results.get(block=wait and written is None, timeout=1.0)
            except queue.Empty:
                break
            tag, _size = self._in_hand.popleft()
            self._raise_failure(failure)
            if failure is None:  # what was stopped was not written
                written = tag
        if written is not None:
            assert self._channel is not None
            self._channel.basic_ack(written, multiple=True)

    def _raise_failure(self, failure: Exception | None) -> None:
        if failure is not None:
            self._stop.set()
            if not isinstance(failure, Stopped):
                raise failure

    def _close(self) -> None:
        """Finishes the batches in hand and hands back the rest, unharmed: closing requeues what was not acked."""
        assert self._connection is not None
        while self._in_hand:
            self._watch.progress()
            self._connection.process_data_events(time_limit=0)
            self._settle(wait=True)
        self._connection.close()

    def _write(self) -> None:
        failure: Exception | None = None  # after one nothing is written: what is behind must not be recorded before it
        while (batch := self._batches.get()) is not None:
            if failure is None:
                try:
                    self._writer.write(batch)
                except Exception as error:  # noqa: BLE001 - the other thread raises it
                    failure = error
            self._give_way.done()
            self._results.put(failure)
            self._wake()

    def _wake(self) -> None:
        try:
            if self._connection is not None:
                self._connection.add_callback_threadsafe(_nothing)
        except AMQPError:
            pass  # the connection is gone, and with it what would have been acked


def _fitting(sizes: Iterable[int]) -> int:
    """How many of the first are a batch by their bytes; one at least."""
    return max(1, sum(total <= MAX_BATCH for total in accumulate(sizes)))


def _as_first_published(message: Message) -> Message:
    """A dead letter that was replayed, as its sender published it."""
    headers = dict(message.headers or {})
    others = {**message.others, "user_id": headers.pop(FIRST_USER)}
    return replace(message, headers=headers, others=others, trusted=False)


def _nothing() -> None:
    """Wakes the connection's loop, no more."""


def run(settings: Settings) -> int:
    """Runs one ingest worker until SIGTERM or SIGINT. Returns the exit status."""
    with Process(settings, "ingest", "database_url", "amqp_url", "keys", switch_interval=SWITCH_INTERVAL) as process:
        give_way = GiveWay()
        engine = process.engine(2, connections=give_way.connections)
        watch, stop = Watch(), process.stop
        writer = process.closing(Writer(engine, Vault(settings.fernet_keys()), open_blobs(settings), stop.is_set, watch))
        ingest = Ingest(settings, writer, stop, give_way, watch)
        broker = process.closing(of_rabbitmq(settings, "ingest")).with_work(lambda: ingest.trouble)
        beat = process.serve({"broker": broker, "database": process.database(lambda: writer.trouble)})
        writer.load()
        give_way.done()
        watch.install()
        ingest.run(beat)
    return process.status
