"""The ingest worker: takes all messages waiting in the inbox, and acks them once they are in the ledger.

Two threads: the main thread reads from the broker and admits the next batch while the writer thread records the last one.
If the process dies, all unacked messages are redelivered; those already committed are duplicates.
"""

import queue
import random
import threading
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
from ops.runtime.driver.db_distance import round_trip
from ops.runtime.thread_priority import ThreadPriority
from ops.runtime.vault import Vault
from ops.settings import Settings
from ops.telemetry import metrics, table
from schemas.message import FIRST_USER, Message
from workers.amqp import header_tables
from workers.amqp.broker_pulse import of_rabbitmq
from workers.amqp.brokers import Brokers
from workers.ingest.consumer import InboxConsumer, withheld_until
from workers.ingest.heads_entries import HeadsEntries
from workers.ingest.held import Batch, Held, far_batch, waits_since
from workers.ingest.keeper import Keeper
from workers.ingest.probe_answers import ProbeAnswers, is_probe
from workers.ingest.watchdog import Watch
from workers.ingest.writer import Judged, Stopped, Writer
from workers.net.answer_deadline import AnswerDeadline
from workers.process import Process
from workers.rounds import RECONNECT

log = structlog.get_logger()

MAX_BUFFERED = 32 * 1024 * 1024  # bytes of bodies buffered; above it the socket is not read until a batch is done
MAX_BATCH = 32 * 1024 * 1024  # bytes of bodies in one batch, in the blob store or not, unless one body alone is larger
AHEAD = 2  # batches that the writer thread has at most: the one it writes, and the next if that is full already
SWITCH_INTERVAL = 0.0001  # seconds one thread may keep the other waiting; the default of 5 ms would idle the database


class Ingest:
    """A consumer of the inbox, and its writer thread."""

    def __init__(
        self, settings: Settings, writer: Writer, stop: threading.Event, priority: ThreadPriority, watch: Watch
    ) -> None:
        header_tables.install()
        self._watch = watch
        self._priority = priority
        self._settings = settings
        self._most = settings.batch_size  # messages in a batch
        self._brokers = Brokers(settings.amqp_url)
        self._writer = writer
        self._stop = stop
        self._connection: pika.BlockingConnection | None = None
        self._channel: BlockingChannel | None = None
        self._consumer: InboxConsumer | None = None
        self._withheld_until = 0.0  # monotonic
        self._answers: ProbeAnswers | None = None
        self._deadline: AnswerDeadline | None = None
        self._held = Held()
        self._buffer, self._in_hand = self._held.buffer, self._held.in_hand
        self._buffered = 0  # bytes
        self._batches: queue.Queue[list[Judged] | None] = queue.Queue(AHEAD + 1)
        self._results: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        self._beat = self._came = _nothing
        self.trouble: str | None = "not connected yet"

    def run(self, beat: Callable[[], None]) -> None:
        """Consume until the process is to stop; reconnect whenever the broker goes away."""
        self._beat = lambda: self._on(beat)
        self._held.show()
        thread = threading.Thread(target=self._write, name="writer")
        thread.start()
        wait = RECONNECT[0]
        try:
            while not self._stop.is_set():
                self._beat()
                try:
                    self._connect()
                    wait = RECONNECT[0]
                    self._consume()
                except (AMQPError, AMQPConnectorException, OSError) as error:  # the second: no handshake
                    self.trouble = f"broker: {error!r}"
                    self._withheld_until = max(self._withheld_until, withheld_until(error))
                    log.warning("broker_lost", error=repr(error), again_in=round(wait, 1))
                    table.BROKER_RECONNECTS.labels("consumer").inc()
                    self._disconnect()
                    self._stop.wait(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnects, guards nothing
                    wait = min(wait * 2, RECONNECT[1])
        finally:
            if self._consumer is not None:
                self._consumer.close()
            self._batches.put(None)
            while thread.is_alive():
                self._watch.progress()
                thread.join(1.0)

    def _on(self, beat: Callable[[], None]) -> None:
        """Report that the loop runs: to the probes, and to the watchdog, which kills a process that is stuck."""
        beat()
        self._watch.progress()

    def _connect(self) -> None:
        self._await_old_batches()  # not later: a connection that is open and not read loses its heartbeat
        parameters = self._brokers.next()
        parameters.heartbeat = 5  # pika notices a silent broker after 10 to 20 s
        parameters.client_properties = {"connection_name": "waxseal ingest"}
        parameters.socket_timeout = parameters.stack_timeout = 10
        parameters.blocked_connection_timeout = None  # only publishers are blocked
        self._connection = pika.BlockingConnection(parameters)
        self._deadline = AnswerDeadline(self._connection)
        self._most = far_batch(self._settings.batch_size, round_trip())
        prefetch = max(self._settings.prefetch, 2 * self._most)
        self._consumer = InboxConsumer(self._connection, prefetch, self._receive, self._settings.amqp_url, self._withheld_until)
        self._channel, self._came = self._consumer.channel, self._consumer.came
        self._answers = ProbeAnswers(self._connection, self._channel)
        self._held.acked = 0
        self._consumer.start()
        self.trouble = None

    def _disconnect(self) -> None:
        """Close a connection of which only the channel was lost: else the broker would keep it beside the next one.

        If the broker does not answer, the heartbeat ends the wait.
        """
        if self._consumer is not None:
            self._consumer.close()
        if self._connection is not None and self._connection.is_open:
            with suppress(AMQPError, OSError):
                self._connection.close()

    def _await_old_batches(self) -> None:
        """Wait for batches of the previous connection: their tags are invalid on the next, and the broker redelivers them."""
        self._buffer.clear()
        self._buffered = 0
        while self._in_hand:
            self.trouble = "not connected: batches of the last connection are still being written"
            self._beat()
            with suppress(queue.Empty):
                failure = self._results.get(timeout=1.0)
                self._in_hand.popleft()
                self._raise_failure(failure)

    def _consume(self) -> None:
        assert self._connection is not None
        assert self._consumer is not None
        assert self._deadline is not None
        while not self._stop.is_set():
            self._beat()
            self._deadline.progress()
            self.trouble = self._consumer.turn(quiet=self._held.quiet())
            if self._buffered < MAX_BUFFERED or not self._in_hand:
                self._connection.process_data_events(time_limit=0.5)
            self._settle(wait=self._buffered >= MAX_BUFFERED)
            self._hand_over()
            self._answer_probes()
        self._close()

    def _receive(self, tag: int, redelivered: bool, message: Message) -> None:
        self._priority.yield_to_first()
        self._watch.progress()
        self._came()
        if is_probe(message):
            assert self._answers is not None
            self._answers.arrived(tag, message)
            return
        if message.trusted and message.headers and FIRST_USER in message.headers:
            message = _as_first_published(message)
        judged = self._writer.judge(message, suspect=redelivered)
        self._buffer.append((tag, judged))
        self._buffered += judged.size

    def _answer_probes(self) -> None:
        assert self._answers is not None
        tag = self._answers.ack()
        if not self._buffer and not self._in_hand:
            self._held.acked = max(self._held.acked, tag)
        self._answers.send()

    def _hand_over(self) -> None:
        """Give an idle writer thread all messages that have arrived, up to a batch, without lingering.

        Give a busy one the next batch ahead only if that is full, so that the database need not wait.
        """
        while self._buffer and (not self._in_hand or self._may_go_ahead()):
            count = min(len(self._buffer), self._most)
            if self._buffered > MAX_BATCH:
                count = _fitting([judged.size for _tag, judged in islice(self._buffer, count)])
            taken = [self._buffer.popleft() for _ in range(count)]
            size = sum(judged.size for _tag, judged in taken)
            self._buffered -= size
            self._in_hand.append(Batch(taken[-1][0], size, waits_since(taken[0][1].message)))
            self._batches.put([judged for _tag, judged in taken])

    def _may_go_ahead(self) -> bool:
        """Whether the next batch is full and may be queued: buffer and batches in hand stay within `MAX_BATCH` bytes."""
        whole = len(self._buffer) >= self._most
        return whole and len(self._in_hand) < AHEAD and self._buffered + sum(batch.size for batch in self._in_hand) <= MAX_BATCH

    def _settle(self, *, wait: bool) -> None:
        """Ack the batches that have been written, on the channel that delivered them."""
        written: int | None = None
        while self._in_hand:
            try:
                failure = self._results.get(block=wait and written is None, timeout=1.0)
            except queue.Empty:
                break
            batch = self._in_hand.popleft()
            self._raise_failure(failure)
            if failure is None:  # a batch that ended with `Stopped` was not written
                written = batch.tag
        if written is not None:
            assert self._channel is not None
            self._channel.basic_ack(written, multiple=True)
            self._held.acked = written

    def _raise_failure(self, failure: Exception | None) -> None:
        if failure is not None:
            self._stop.set()
            if not isinstance(failure, Stopped):
                raise failure

    def _close(self) -> None:
        """Finish the batches in hand and return the rest to the queue: closing the connection requeues unacked messages."""
        assert self._connection is not None
        assert self._deadline is not None
        while self._in_hand:
            self._watch.progress()
            self._deadline.progress()
            self._connection.process_data_events(time_limit=0)
            self._settle(wait=True)
        self._connection.close()

    def _write(self) -> None:
        failure: Exception | None = None  # after a failure write nothing, or later batches would be recorded before that one
        while (batch := self._batches.get()) is not None:
            if failure is None:
                try:
                    self._writer.write(batch)
                except Exception as error:  # noqa: BLE001 - the main thread raises it
                    failure = error
            self._priority.done()
            self._results.put(failure)
            self._wake()

    def _wake(self) -> None:
        try:
            if self._connection is not None:
                self._connection.add_callback_threadsafe(_nothing)
        except AMQPError:
            pass  # the connection is closed, so its messages can no longer be acked


def _fitting(sizes: Iterable[int]) -> int:
    """How many of the first messages fit into a batch by their sizes; at least one."""
    return max(1, sum(total <= MAX_BATCH for total in accumulate(sizes)))


def _as_first_published(message: Message) -> Message:
    """A replayed dead letter, in the form in which its sender published it."""
    headers = dict(message.headers or {})
    others = {**message.others, "user_id": headers.pop(FIRST_USER)}
    return replace(message, headers=headers, others=others, trusted=False)


def _nothing() -> None:
    """A callback that only wakes the connection's loop."""


def run(settings: Settings) -> int:
    """Run one ingest worker until SIGTERM or SIGINT. Returns the exit status."""
    with Process(settings, "ingest", "database_url", "amqp_url", "keys", switch_interval=SWITCH_INTERVAL) as process:
        priority = ThreadPriority()
        engine = process.engine(2, connections=priority.connections)
        watch, stop = Watch(), process.stop
        blobs = open_blobs(settings, called=metrics.observe_blob_call)
        vault = Vault(settings.fernet_keys())
        keeper = process.closing(Keeper(settings.amqp_url))
        writer = process.closing(Writer(engine, vault, blobs, stop.is_set, watch, keeper.keep))
        ingest = Ingest(settings, writer, stop, priority, watch)
        broker = process.closing(of_rabbitmq(settings, "ingest")).with_work(lambda: ingest.trouble)
        beat = process.serve({"broker": broker, "database": process.database(lambda: writer.trouble)})
        writer.load()
        priority.done()
        watch.install()
        process.at_end(watch.close)
        process.closing(HeadsEntries(process.engine(1), vault, settings.log_heads_every))
        ingest.run(beat)
    return process.status
