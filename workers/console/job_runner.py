"""Runs jobs in a thread of the console process, one at a time. Jobs on the ledger are done by a process of their own."""

import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from typing import Any, Final

import orjson
import structlog
from sqlalchemy import Engine

from ops.admin.access.repeated import forget_old
from ops.admin.jobs.arguments import Arguments
from ops.admin.jobs.exports import FILES_KEPT
from ops.admin.jobs.running import LEASE, Run, Stopped, clean, run, take
from ops.errors import OpsError, one_line
from ops.runtime.db import passes
from ops.settings import Settings
from schemas.job import JobState
from workers.commands.republish import inbox
from workers.console.ledger_job_child import order
from workers.rounds import Rounds

JOBS_KEPT: Final = 30 * 86_400.0  # seconds after which a job's row is erased; its act stays in the audit
_LOOK: Final = 1.0  # seconds between two looks for a job
_CLEAN: Final = 300.0  # seconds between two erasures of old files, and of answers under old Idempotency-Keys
_LISTEN: Final = 0.2  # seconds

_log = structlog.get_logger()


class JobRunner:
    """Takes jobs until `close`. A job that is under way then waits for another console."""

    def __init__(self, settings: Settings, engine: Engine, lease: float = LEASE) -> None:
        """`engine` is of its own: it needs one connection at a time."""
        self._settings = settings
        self._engine = engine
        self._lease = lease
        self._stop = threading.Event()
        self._owner = f"{socket.gethostname()}/{os.getpid()}"
        self._cleaned = 0.0
        self._rounds = Rounds(self._stop, self._turn)
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._thread.start()

    def trouble(self) -> str | None:
        """Why it runs no jobs; None while it does."""
        return None if self._thread.is_alive() else "the thread that runs jobs has ended; the log says why"

    def close(self) -> None:
        """Put back the job that is under way, and end."""
        self._stop.set()
        self._thread.join(15)

    def _run(self) -> None:
        try:
            self._rounds.run(lambda: None)
        except Exception:  # noqa: BLE001 - `trouble` says that it ended
            _log.exception("job_runner_ended")

    def _turn(self) -> float:
        if time.monotonic() - self._cleaned > _CLEAN or not self._cleaned:
            clean(self._engine, FILES_KEPT, JOBS_KEPT)
            forget_old(self._engine)
            self._cleaned = time.monotonic()
        job = take(self._engine, self._owner, self._lease)
        if job is None:
            return _LOOK
        log = _log.bind(job=job.id, kind=job.kind, tenant=job.told["tenant"], who=job.told["who"])
        log.info("job_begun", done=job.told["done"], total=job.told["total"])
        state: JobState | None
        try:
            with inbox(self._settings, in_process=True) as publish:
                state = run(job, publish, partial(_in_child, self._settings, self._stop), self._stop)
        except OpsError as error:
            state = "failed"
            job.end(state, one_line(error))
        except Exception as error:
            if passes(error):
                raise
            state = "failed"
            log.exception("job_failed")
            job.end(state, f"{type(error).__name__}; the console's log says more")
        log.info("job_ended" if state else "job_goes_on_elsewhere", state=state)
        return 0.0


def _in_child(settings: Settings, stop: threading.Event, job: Run, arguments: Arguments) -> dict[str, Any]:
    """Does a job on the ledger in another process, which is ended with the job. Raises `OpsError` for what that process met.

    Not by `multiprocessing`: a console that `up` has forked is a daemon of it, and may have no children.
    """
    wanted = arguments.model_dump(mode="json", exclude_none=True)
    asked = order(settings, job.kind, job.told["tenant"], wanted, (job.id, job.lease))
    command = [sys.executable, "-m", "workers.console.ledger_job_child"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(asked)
        return _heard(process.stdout.fileno(), stop, job)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _heard(pipe: int, stop: threading.Event, job: Run) -> dict[str, Any]:
    """What the process tells at its end. Renews the lease meanwhile."""
    done, beaten, raw = None, 0.0, b""
    with selectors.DefaultSelector() as ready:
        ready.register(pipe, selectors.EVENT_READ)
        while True:
            if stop.is_set():
                raise Stopped
            if time.monotonic() - beaten > min(1.0, job.seconds / 4):
                job.beat(done)
                beaten = time.monotonic()
            if not ready.select(_LISTEN):
                continue
            more = os.read(pipe, 65_536)
            *lines, raw = (raw + more).split(b"\n")
            for told in map(orjson.loads, lines):
                if "error" in told:
                    raise OpsError(told["error"])
                if "result" in told:
                    job.beat(int(told["result"]["entries"]))
                    return dict(told["result"])
                done = int(told["done"])
            if not more:
                raise OpsError("the process that did it ended before it was done; the console's log says why")
