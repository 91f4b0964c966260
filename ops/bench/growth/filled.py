"""Fills a database with recorded and delivered events, by the statements of the route itself; resumes where it was cut off.

Events are appended as ingest appends them, claimed as relays claim them, and settled as deliver processes settle them, with an
attempt each, while a sequencer gives their entries positions. Left out are RabbitMQ and HTTP, waiting for the disk at each
COMMIT, and all but a few checkpoints. A subject has twenty events; each of the processes has a thousand subjects under way.
"""

import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import psutil
import psycopg
from sqlalchemy import Engine

from ops.bench.delivery_stage import Stage, event, known
from ops.bench.load import SUBJECTS
from ops.runtime.db import make_engine, transaction
from ops.servers.accounts import own_file
from ops.settings import Settings
from pipeline.append import append
from pipeline.claim import Lease, claim_anything
from pipeline.fanout import Subscriptions
from pipeline.store.deliveries import claims, settling
from pipeline.store.log import pending
from schemas.delivery import Claim, Receipt, Settlement

BATCH: Final = 1000  # events in one transaction
CLAIM: Final = 500
LONG: Final = 20  # events of a subject
BLOCK: Final = SUBJECTS * LONG  # events that one process appends before it takes others: subjects as a whole
PROCESSES: Final = 2
TELL: Final = 10.0  # seconds between two lines on how far it is
_LEASE: Final = timedelta(seconds=90)
_PAUSE: Final = 0.1

MAINTAIN: Final = ("VACUUM (ANALYZE)", "CHECKPOINT")

#: Of the server, while it is filled. After each checkpoint, whole pages are written.
HASTE: Final = {"synchronous_commit": "off", "checkpoint_timeout": "1h", "max_wal_size": "8GB"}
_RELOAD: Final = "SELECT pg_reload_conf()"


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
        first = self.filled
        blocks = [range(number, min(number + BLOCK, size)) for number in range(first, size, BLOCK)]
        reached = tuple(self._stage.env[name] for name in ("WAXSEAL_DATABASE_URL", "WAXSEAL_KEYS"))
        maintain(self._stage.engine, *(f"ALTER SYSTEM SET {name} = '{value}'" for name, value in HASTE.items()), _RELOAD)
        try:
            with ProcessPoolExecutor(PROCESSES, get_context("spawn"), partial(_begin, *reached)) as pool:
                for block in pool.map(_fill, blocks):
                    self._progress(block.stop, size)
            _settle(self._stage.engine)
            while self._unfinished():
                time.sleep(_PAUSE)
                _settle(self._stage.engine)
        finally:
            settle_down(self._stage.engine)

    def _progress(self, done: int, size: int) -> None:
        own_file(self._file, json.dumps({"filled": done}), None)
        if done == size or time.monotonic() - self._told >= TELL:
            self._told = time.monotonic()
            self._tell(f"filled with {done:,} of {size:,} events")

    def _unfinished(self) -> bool:
        """Whether positions are missing, or a process that was killed had leases; those that ended are due again."""
        with transaction(self._stage.engine) as conn:
            claims.expire_leases(conn, datetime.now(UTC), CLAIM)
            return bool(pending.sizes(conn)[1] or claims.leased(conn, 1))


class _Here:
    """What a process of the pool fills by."""

    engine: Engine
    key: bytes
    subscribed: Subscriptions


def _begin(url: str, keys: str) -> None:
    _Here.engine = make_engine(url, pool_size=1)
    _Here.key, _Here.subscribed = known(_Here.engine, Settings(database_url=url, keys=keys))


def _fill(numbers: range) -> range:
    """Appends these events and settles what is due; ends itself where nobody waits for it any more."""
    for first in range(numbers.start, numbers.stop, BATCH):
        if psutil.Process().ppid() == 1:
            raise SystemExit
        with transaction(_Here.engine) as conn:
            batch = range(first, min(first + BATCH, numbers.stop))
            append(conn, [event(each, subject(each), _Here.key) for each in batch], _Here.subscribed, datetime.now(UTC))
        _settle(_Here.engine)
    return numbers


def _settle(engine: Engine) -> None:
    """Claims and settles whatever is due."""
    while True:
        now = datetime.now(UTC)
        lease = Lease(uuid4(), now, now + _LEASE)
        with transaction(engine) as conn:
            claimed = claim_anything(conn, lease, CLAIM)
        if not claimed:
            return
        settle(engine, lease.id, [*claimed])


def subject(number: int) -> str:
    """The subject of the filled event of this number."""
    return f"filled-{number // BLOCK * SUBJECTS + number % SUBJECTS}"


def settle(engine: Engine, lease: UUID, claimed: list[Claim]) -> None:
    """Settle them as delivered at their first try."""
    receipt = Receipt(datetime.now(UTC), 0.001, status=204)
    with transaction(engine) as conn:
        settling.settle(
            conn, [(lease, Settlement(each.id, 1, "delivered", receipt, None)) for each in claimed], receipt.started_at
        )


def settle_down(engine: Engine) -> None:
    """Take back what a server is told while it is filled."""
    maintain(engine, *(f"ALTER SYSTEM RESET {name}" for name in HASTE), _RELOAD)


def maintain(engine: Engine, *statements: str) -> float:
    """Run statements that take no transaction, however long they take; gives their seconds."""
    began = time.monotonic()
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as conn:
        for statement in statements:
            conn.execute(statement.encode())
    return time.monotonic() - began
