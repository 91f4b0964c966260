"""The eraser process: erases content by its retention, and deletes the blobs of erased content, once an hour; and on request.

It logs in with the role waxseal_eraser, which may erase what an erasure entry lists, and change nothing else. If it dies, the
next run goes on where it stopped.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

import structlog

from ops.admin.erasure.erased_blobs import sweep
from ops.admin.erasure.retention import Ran, last_run, run_retention
from ops.admin.read_session import snapshot, tenant_keys
from ops.process_roles import ERASER
from ops.runtime.background import Chore
from ops.runtime.blobs import Blobs, open_blobs
from ops.runtime.db import Engine
from ops.settings import Settings
from ops.telemetry import ledger_table, metrics
from workers.eraser import erasure_requests
from workers.eraser.erasure_requests import ErasureRequests
from workers.process import Process

BEAT: Final = 1.0  # seconds
EVERY: Final = 3600.0  # seconds between two runs
SLOWEST: Final = 600.0  # seconds for one statement: once a week, the oldest entry is looked for in the whole table

_log = structlog.get_logger()


def run(settings: Settings) -> int:
    """Run one eraser until SIGTERM or SIGINT. Returns the exit status."""
    with Process(settings, ERASER, "database_url", "keys") as process:
        engine = process.engine(3, statement_timeout=SLOWEST)
        blobs = open_blobs(settings, called=metrics.observe_blob_call)
        beat = process.serve({"database": process.database(lambda: None)})
        turn = partial(erase_due, engine, settings, blobs, process.stop.is_set)
        process.closing(Chore("retention", EVERY, turn))
        requests = ErasureRequests(engine, settings, blobs, process.stop)
        process.closing(Chore("erasure requests", erasure_requests.EVERY, requests.turn))
        while not process.stop.wait(BEAT):
            beat()
    return process.status


def erase_due(engine: Engine, settings: Settings, blobs: Blobs, stop: Callable[[], bool]) -> None:
    """Erase what is due, and see to the blobs of what was erased, by whomever."""
    with snapshot(engine) as conn:
        keys = tenant_keys(conn, settings) or {}
    try:
        _tell(run_retention(engine, keys, datetime.now(UTC), settings.retention_most, stop=stop))
    finally:
        last = last_run(engine)
        ledger_table.RETENTION_HELD.set(last is not None and last.held is not None)
    swept = sweep(engine, blobs, datetime.now(UTC))
    if swept.deleted:
        _log.info("erased_blobs_deleted", blobs=swept.deleted)


def _tell(ran: Ran) -> None:
    ledger_table.ERASED_ENTRIES.inc(ran.erased.entries)
    ledger_table.RETENTION_BEHIND.set(ran.behind)
    for transport, count in ran.erased.discarded.items():
        metrics.observe_cancelled(transport, count)
    if ran.held is not None:
        _log.error("retention_held", why=ran.held, look="waxseal retention")
    elif ran.erased.entries or ran.more:
        _log.info("retention_carried_out", entries=ran.erased.entries, bytes=ran.erased.bytes, more=ran.more)
    for chain in ran.unsound:
        _log.error("chain_not_erased", chain=chain.hex, why="it is not sound; `waxseal verify` names the fault")
