"""A real ingest worker in threads of the test: everything but the process around it, its signals and its watchdog."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ops.runtime.blobs import Blobs
from ops.runtime.db import make_engine
from ops.runtime.thread_priority import ThreadPriority
from ops.settings import Settings
from workers.ingest.keeper import Keeper
from workers.ingest.watchdog import Watch
from workers.ingest.worker import Ingest
from workers.ingest.writer import Writer


@dataclass
class Worker:
    """A worker that runs until `stop` is set, or an error ends it."""

    ingest: Ingest
    writer: Writer
    thread: threading.Thread
    stopping: threading.Event

    def stop(self) -> None:
        """Stops it as SIGTERM stops its process; returns when it has ended."""
        self.stopping.set()
        self.ingest._wake()
        self.thread.join(60)
        assert not self.thread.is_alive()


@contextmanager
def running(database: Any, amqp_url: str, blobs: Blobs, **settings: Any) -> Iterator[Worker]:
    """Consumes the inbox until the block ends; raises then what ended the worker before."""
    stopping, priority = threading.Event(), ThreadPriority()
    engine = make_engine(database.worker_url, pool_size=2, connections=priority.connections)
    keeper = Keeper(amqp_url)
    writer = Writer(engine, database.vault, blobs, stopping.is_set, keep=keeper.keep)
    ingest = Ingest(Settings(amqp_url=amqp_url, **settings), writer, stopping, priority, Watch())
    errors: list[Exception] = []

    def run() -> None:
        try:
            writer.load()
            priority.done()
            ingest.run(lambda: None)
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)

    worker = Worker(ingest, writer, threading.Thread(target=run, name="ingest"), stopping)
    worker.thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        writer.close()
        keeper.close()
        engine.dispose()
    if errors:
        raise errors[0]
