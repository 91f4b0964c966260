"""The ingest worker as a thread of the test's process, which saves the 2 s of CPU that starting a process takes."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ops.runtime.blobs import open_blobs
from ops.runtime.db import make_engine
from ops.runtime.thread_priority import GiveWay
from ops.runtime.vault import Vault
from ops.settings import Settings
from workers.ingest.watchdog import Watch
from workers.ingest.worker import Ingest
from workers.ingest.writer import Writer


@contextmanager
def ingesting(database: Any, amqp_url: str, blobs: Path) -> Iterator[None]:
    """Records what is in the inbox until the block ends; then what is unacked is in the inbox again."""
    settings = Settings(database_url=database.worker_url, amqp_url=amqp_url, keys=database.key, blobs=str(blobs))
    stop, give_way, failed = threading.Event(), GiveWay(), []
    engine = make_engine(settings.database_url, pool_size=2, connections=give_way.connections)
    with closing(Writer(engine, Vault([database.key]), open_blobs(settings), stop.is_set)) as writer:
        writer.load()
        give_way.done()

        def run() -> None:
            try:
                Ingest(settings, writer, stop, give_way, Watch()).run(lambda: None)
            except Exception as error:  # noqa: BLE001 - the test's thread raises it
                failed.append(error)

        thread = threading.Thread(target=run, name="ingest")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
    engine.dispose()
    if failed:
        raise failed[0]
