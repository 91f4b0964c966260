"""Fills a database with recorded and delivered events, by the statements of the route itself; resumes where it was cut off.

Events are appended as ingest appends them, claimed as relays claim them, and settled as deliver processes settle them, with an
attempt each, while a sequencer gives their entries positions. Left out are RabbitMQ and HTTP. A subject has twenty events, and
a thousand subjects are under way at any time.
"""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import Engine, text

from ops.bench.delivery_stage import Stage, event
from ops.bench.load import SUBJECTS
from ops.runtime.db import transaction
from ops.servers.accounts import own_file
from pipeline.append import append
from pipeline.claim import Lease, claim_anything
from pipeline.store.deliveries import deliveries
from pipeline.store.log import pending
from schemas.delivery import Claim, Receipt, Settlement

BATCH: Final = 1000  # events in one transaction
CLAIM: Final = 500
LONG: Final = 20  # events of a subject
TELL: Final = 10.0  # seconds between two lines on how far it is
_LEASE: Final = timedelta(seconds=90)
_PAUSE: Final = 0.1

MAINTAIN: Final = ("VACUUM (ANALYZE)", "CHECKPOINT")


class Filling:
    """The database of a stage, while it is being filled. How far it is, a file beside the data says."""

    def __init__(self, stage: Stage, folder: Path, tell: Callable[[str], None]) -> None:
        self._stage = stage
        self._file = folder / "growth.json"
        self._tell = tell
        self._told = time.monotonic()

    @property
    def filled(self) -> int:
        """How many events are in the database at least; a batch that is appended again is refused as duplicates."""
        return int(json.loads(self._file.read_text(encoding="utf-8"))["filled"]) if self._file.exists() else 0

    def to(self, size: int) -> None:
        """Fill until there are `size` events, all of them delivered and with a position."""
        key, subscribed = self._stage.known()
        first, appended = self.filled, threading.Event()
        with ThreadPoolExecutor(1) as pool:
            settling = pool.submit(self._settle, appended)
            try:
                for number in range(first, size, BATCH):
                    numbers = range(number, min(number + BATCH, size))
                    with transaction(self._stage.engine) as conn:
                        append(conn, [event(each, subject(each), key) for each in numbers], subscribed, datetime.now(UTC))
                    self._progress(numbers.stop, size)
                    if settling.done():
                        break
            finally:
                appended.set()
            settling.result()
        while self._pending():
            time.sleep(_PAUSE)

    def _progress(self, done: int, size: int) -> None:
        if done == size or time.monotonic() - self._told >= TELL:
            self._told = time.monotonic()
            own_file(self._file, json.dumps({"filled": done}), None)
            self._tell(f"filled with {done:,} of {size:,} events")

    def _settle(self, appended: threading.Event) -> None:
        """Claims and settles whatever is due, until all was appended and nothing is due any more."""
        while True:
            last = appended.is_set()
            now = datetime.now(UTC)
            lease = Lease(uuid4(), now, now + _LEASE)
            with transaction(self._stage.engine) as conn:
                claimed = claim_anything(conn, lease, CLAIM)
            if claimed:
                settle(self._stage.engine, lease.id, [*claimed])
            elif last:
                return
            else:
                time.sleep(_PAUSE)

    def _pending(self) -> int:
        with transaction(self._stage.engine) as conn:
            return pending.sizes(conn)[1]


def subject(number: int) -> str:
    """The subject of the filled event of this number."""
    return f"filled-{number // (SUBJECTS * LONG) * SUBJECTS + number % SUBJECTS}"


def settle(engine: Engine, lease: UUID, claimed: list[Claim]) -> None:
    """Settle them as delivered at their first try."""
    receipt = Receipt(datetime.now(UTC), 0.001, status=204)
    with transaction(engine) as conn:
        deliveries.settle(
            conn, [(lease, Settlement(each.id, 1, "delivered", receipt, None)) for each in claimed], receipt.started_at
        )


def maintain(engine: Engine, *statements: str) -> float:
    """Run statements that take no transaction; gives their seconds."""
    began = time.monotonic()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(text("SET statement_timeout = 0"))
        for statement in statements:
            conn.execute(text(statement))
        conn.invalidate()  # else the pool would keep the setting
    return time.monotonic() - began
