"""Carries out what admins asked to be erased: jobs that the console added, which has no rights over the ledger itself."""

import os
import socket
import threading
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from ops.admin.erasure.erase_subject import check_requests, is_unsound
from ops.admin.erasure.erased_blobs import sweep
from ops.admin.jobs.arguments import Arguments
from ops.admin.jobs.chunks import Chunk, Moved, Step
from ops.admin.jobs.erasing import step
from ops.admin.jobs.running import LEASE, Run, run, take
from ops.admin.read_session import snapshot, tenant_keys
from ops.errors import OpsError, one_line
from ops.runtime.blobs import Blobs
from ops.runtime.db import Connection, Engine, passes
from ops.settings import Settings
from ops.telemetry import ledger_table
from pipeline.errors import BlobsAway
from schemas.job import JobState

EVERY: Final = 2.0  # seconds between two looks

_log = structlog.get_logger()


class ErasureRequests:
    """Takes one job after the other. If it dies in one, the next eraser goes on where it was."""

    def __init__(self, engine: Engine, settings: Settings, blobs: Blobs, stop: threading.Event, lease: float = LEASE) -> None:
        self._engine = engine
        self._settings = settings
        self._blobs = blobs
        self._stop = stop
        self._lease = lease
        self._owner = f"{socket.gethostname()}/{os.getpid()}"

    def turn(self) -> None:
        """Carry out what waits."""
        done = False
        while not self._stop.is_set():
            job = take(self._engine, self._owner, self._lease, ["erase"])
            if job is None:
                break
            done |= self._carry_out(job) == "done"
        if done:
            self._sweep()

    def _carry_out(self, job: Run) -> JobState | None:
        log = _log.bind(job=job.id, tenant=job.told["tenant"], who=job.told["who"])
        log.info("erasure_begun", entries=job.told["total"])
        try:
            check_requests(self._settings)
        except OpsError as error:
            job.end("failed", str(error))
            return "failed"
        with snapshot(self._engine) as conn:
            keys = tenant_keys(conn, self._settings) or {}
        state: JobState | None
        try:
            state = run(job, _nothing_to_publish, _not_in_chunks, self._stop, {"erase": _noted(step(keys))})
        except Exception as error:
            if not is_unsound(error) and passes(error):
                raise
            state, why = "failed", f"{type(error).__name__}: {one_line(error)}"
            if is_unsound(error):
                why = f"the chain is not sound, so no entry can follow its last one: `waxseal verify` names the fault ({why})"
            job.end(state, why)
        log.info("erasure_ended" if state else "erasure_goes_on_elsewhere", state=state)
        return state

    def _sweep(self) -> None:
        try:
            sweep(self._engine, self._blobs, datetime.now(UTC))
        except BlobsAway as error:
            _log.warning("erased_blobs_wait", error=str(error))


def _noted(erase: Step) -> Step:
    def noted(chunk: Chunk, conn: Connection, size: int) -> Moved | None:
        moved = erase(chunk, conn, size)
        if moved is not None:
            ledger_table.ERASED_ENTRIES.inc(moved.done)
        return moved

    return noted


def _nothing_to_publish(_messages: Any) -> list[bool]:
    return []


def _not_in_chunks(_job: Run, _arguments: Arguments) -> dict[str, Any]:
    raise AssertionError("erasures are done in chunks")
