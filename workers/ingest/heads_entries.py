"""Records from time to time where every chain of a tenant ended (LEDGER §3), so that a timeline can be proved to be whole.

In the ingest process, which has the right to record and the tenants' keys. Several such processes do it once: the second finds
the first one's entry. The chains are read in pages with pauses between them, so that recording is hardly slowed down; a process
that dies meanwhile has recorded nothing, and the next one begins anew.
"""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import structlog

from ops.runtime.background import Chore
from ops.runtime.db import Engine, transaction
from ops.runtime.vault import Vault
from pipeline.append import append_own
from pipeline.dedupe import chain_key
from pipeline.errors import Unreadable
from pipeline.ledger import heads
from pipeline.ledger.heads import Gathered, Heads, Member, read_heads
from pipeline.ledger.own_events import own_event
from pipeline.store.admin import queries
from pipeline.store.log import checkpoints
from pipeline.store.log import heads as store
from pipeline.store.log.checkpoints import OpenLog

TURN: Final = 60.0  # seconds between two looks whether an entry is due
PAGE: Final = 2000  # chains in one statement
PAUSE: Final = 0.05  # seconds between two

_MICRO: Final = 1_000_000

_log = structlog.get_logger()


class HeadsEntries:
    """Records heads entries every so many seconds, from construction to `close`, in a thread of its own."""

    def __init__(self, engine: Engine, vault: Vault, every: float) -> None:
        self._engine = engine
        self._vault = vault
        self._every = every
        self._stop = threading.Event()
        self._chore = Chore("heads", min(TURN, every), self.turn)

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._chore.close()

    def turn(self) -> None:
        """Record what is due, tenant by tenant."""
        with transaction(self._engine) as conn:
            logs = checkpoints.open_logs(conn)
            keys = queries.tenants(conn)
        for log in logs:
            if log.tenant in keys and not self._stop.is_set():
                self.record(log, self._vault.decrypt(keys[log.tenant]))

    def record(self, log: OpenLog, key: bytes) -> Heads | None:
        """Record the heads of the log's leaves, if that is due; give what was recorded."""
        chain = chain_key(key, heads.SUBJECT)
        with transaction(self._engine) as conn:
            before = store.last(conn, chain)
        if not self._is_due(log, before):
            return None
        gathered = Gathered()
        for page in self._pages(log):
            gathered.add(page)
        if self._stop.is_set():
            return None
        found, now = gathered.heads(log.size), datetime.now(UTC)
        with transaction(self._engine) as conn:
            if not store.alone(conn, log.tenant) or store.last(conn, chain) != before:
                return None  # another process was faster
            append_own(conn, own_event(log.tenant, key, heads.SUBJECT, heads.TYPE, found.body, now), heads.KIND, now)
        _log.info("heads_recorded", tenant=log.tenant, size=found.size, chains=found.count)
        return found

    def _is_due(self, log: OpenLog, before: store.LastHeads | None) -> bool:
        """Whether the last one is old enough, and the log has grown by more than that one."""
        if before is None:
            return True
        if datetime.now(UTC).timestamp() * _MICRO - before.at < self._every * _MICRO:
            return False
        try:
            return before.body is None or log.size > read_heads(before.body).size + 1
        except Unreadable:
            return True

    def _pages(self, log: OpenLog) -> Iterator[list[Member]]:
        after = UUID(int=0)
        while True:
            with transaction(self._engine) as conn:
                rows = store.members(conn, log.id, log.tenant, log.size, after, PAGE)
            yield [Member(*row) for row in rows]
            if len(rows) < PAGE or self._stop.wait(PAUSE):
                return
            after = rows[-1][0]
