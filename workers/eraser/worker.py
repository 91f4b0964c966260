"""The eraser process: once an hour it erases content by its retention, deletes blobs, and removes what is kept no longer.

It erases on request, too. It logs in with the role waxseal_eraser, which may erase what an erasure entry lists, remove settled
deliveries and what is told of them, and change nothing else. If it dies, the next run goes on where it stopped.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

import structlog

from ops.admin.erasure.erased_blobs import sweep
from ops.admin.erasure.keeping import keeping, oldest, remove_old
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
LONGEST: Final = 1800.0  # seconds of one run for removing what is old
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
    before = last_run(engine)
    try:
        ran = run_retention(engine, keys, datetime.now(UTC), settings.retention_most, stop=stop)
        _tell(ran)
        if before is not None and ran.held is None:  # else nothing says that the clock is right
            remove_what_is_old(engine, settings, stop)
    finally:
        last = last_run(engine)
        ledger_table.RETENTION_HELD.set(last is not None and last.held is not None)
        show_oldest(engine)
    swept = sweep(engine, blobs, datetime.now(UTC))
    if swept.deleted:
        _log.info("erased_blobs_deleted", blobs=swept.deleted)


def remove_what_is_old(engine: Engine, settings: Settings, stop: Callable[[], bool]) -> None:
    """Remove settled deliveries, attempts, and what is told of them, that are older than the settings keep them.

    What half an hour does not suffice for, later runs remove: erasing has its turn each hour.
    """
    removed: dict[str, int] = {}
    until = time.monotonic() + LONGEST
    try:
        for what, count in remove_old(engine, keeping(settings), datetime.now(UTC), lambda: stop() or time.monotonic() > until):
            label = "operator_events" if what == "endpoint_events" else what
            ledger_table.REMOVED.labels(label).inc(count)
            removed[label] = removed.get(label, 0) + count
    finally:
        if any(removed.values()):
            _log.info("removed_what_is_old", **removed)


def show_oldest(engine: Engine) -> None:
    """Show since when there is what may be removed; where there is none of it, the time of this look."""
    now = time.time()
    for what, since in oldest(engine).items():
        ledger_table.KEPT_SINCE.labels(what).set(now if since is None else since.timestamp())


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
