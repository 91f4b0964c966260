"""Runs one job: takes it under a lease, does it chunk by chunk, and ends it.

A chunk locks its job first: who lost the lease does nothing, and nobody takes a job over while a chunk of it is under way.
If the process dies in a chunk, the chunk has not happened; if it dies between two, the next run begins where that one was.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine
from sqlalchemy import RowMapping as Row

from ops.admin import endpoints
from ops.admin.bulk import RATE, Named, Pace
from ops.admin.jobs import arguments as given
from ops.admin.jobs import jobs
from ops.admin.jobs.arguments import Arguments, MissedForGood
from ops.admin.jobs.chunks import STEPS, Chunk, Step
from ops.admin.replay import Publish
from ops.errors import OpsError
from ops.runtime.db import persist, transaction
from pipeline.store import jobs as store
from pipeline.store.admin import audit
from schemas.job import JobKind, JobState

LEASE: Final = 30.0  # seconds without a sign of life after which another process takes the job
PATIENCE: Final = 20.0  # seconds for which a chunk that met a deadlock or a lost connection is tried again
OF_CONSOLE: Final[Sequence[JobKind]] = (*STEPS, "verify", "export")
MOST_RUNS: Final = 5  # in a row that get no further: then it is the job at which processes die


class Lost(Exception):
    """Another process has the job now."""


class Stopped(Exception):
    """This process is to end; the job waits for another."""


class Cancelled(Exception):
    """Somebody asked for the end of the job."""


@dataclass(frozen=True)
class Run:
    """A job that this process runs. `told` is what it was told when it took it."""

    engine: Engine
    told: Row
    lease: UUID
    seconds: float

    @property
    def id(self) -> int:
        """The job's id."""
        return int(self.told["id"])

    @property
    def kind(self) -> JobKind:
        """Its kind."""
        return cast(JobKind, self.told["kind"])

    def beat(self, done: int | None = None) -> None:
        """Renew the lease. Raises `Lost`, and `Cancelled`."""
        with transaction(self.engine) as conn:
            found = store.beat(conn, self.id, self.lease, self.seconds, done)
        if found is None:
            raise Lost
        if found["cancel_by"] is not None:
            raise Cancelled

    def end(self, state: JobState, error: str | None = None, result: dict[str, Any] | None = None) -> None:
        """End the job, unless another process has it."""

        def work(conn: Connection) -> None:
            row = store.hold(conn, self.id, self.lease)
            if row is not None:
                if self.kind == "export":
                    store.drop_parts(conn, self.id, self.lease if result is not None else None)
                jobs.finish(conn, row, self.lease, state, error, result or row["place"].get("result"))

        persist(self.engine, PATIENCE, work)

    def put_back(self) -> None:
        """Let another process go on at once."""
        with transaction(self.engine) as conn:
            store.put_back(conn, self.id, self.lease)


def take(engine: Engine, owner: str, seconds: float = LEASE, kinds: Sequence[JobKind] = OF_CONSOLE) -> Run | None:
    """Takes the oldest job of these kinds that nobody runs; None if there is none."""
    lease = uuid4()
    with transaction(engine) as conn:
        row = store.take(conn, lease, owner, seconds, kinds)
    return None if row is None else Run(engine, row, lease, seconds)


def run(
    job: Run,
    publish: Publish,
    of_ledger: Callable[[Run, Arguments], dict[str, Any]],
    stop: threading.Event,
    steps: Mapping[JobKind, Step] = STEPS,
) -> JobState | None:
    """Runs a job to its end; returns its state, or None if it goes on elsewhere.

    `steps` do the chunks of a job by its kind, and `of_ledger` one of another kind, with `beat` from time to time.
    Raises errors of Postgres that may pass: the job is taken again when its lease has ended.
    """
    result = None
    try:
        arguments = _arguments(job)
        if job.kind in steps:
            _in_chunks(job, arguments, publish, stop, steps[job.kind])
        else:
            result = of_ledger(job, arguments)
    except OpsError as error:
        job.end("failed", str(error))
        return "failed"
    except Cancelled:
        job.end("cancelled")
        return "cancelled"
    except Stopped:
        job.put_back()
        return None
    except Lost:
        return None
    job.end("done", result=result)
    return "done"


def _arguments(job: Run) -> Arguments:
    """What the job was given. Raises `OpsError` for one that nobody should run, and `Cancelled`."""
    if job.told["cancel_by"] is not None:
        raise Cancelled
    if job.told["runs"] > MOST_RUNS:
        raise OpsError(f"it was begun {MOST_RUNS} times, and each time its process ended before it got any further")
    return given.read(job.kind, job.told["tenant"], job.told["arguments"])


def _in_chunks(job: Run, arguments: Arguments, publish: Publish, stop: threading.Event, step: Step) -> None:
    pace = Pace(getattr(arguments, "rate", RATE), sleep=stop.wait)
    tenant, done = job.told["tenant"], 0

    def chunk_of(row: Row) -> Chunk:
        return Chunk(row["tenant"], arguments, row["place"], row["who"], publish)

    if job.told["place"].get("messages") and job.kind == "replay":
        publish([])  # before a transaction is open: that the broker is away must not hold locks
    while True:
        if stop.is_set():
            raise Stopped
        moved = persist(job.engine, PATIENCE, lambda conn: _chunk(conn, job, step, chunk_of, pace.chunk))
        if moved is None:
            break
        done += moved
        pace.keep(done)
    if isinstance(arguments, MissedForGood) and arguments.enable:
        with transaction(job.engine) as conn:
            by = audit.actor(conn, job.told["audit"])
        endpoints.enable(job.engine, Named(str(tenant), arguments.endpoint, by))


def _chunk(conn: Connection, job: Run, step: Step, chunk_of: Callable[[Row], Chunk], size: int) -> int | None:
    """One chunk; how many rows it was on, or None when none are left. Raises `Lost`, and `Cancelled`."""
    row = store.hold(conn, job.id, job.lease)
    if row is None:
        raise Lost
    if row["cancel_by"] is not None:
        raise Cancelled
    moved = step(chunk_of(row), conn, size)
    if moved is None:
        return None
    left = Counter(row["left"]) + Counter(moved.left)
    store.move(conn, job.id, job.lease, row["done"] + moved.done, left, moved.place, job.seconds)
    return moved.done + sum(moved.left.values())


def clean(engine: Engine, files: float, ended: float) -> None:
    """Deletes files of jobs that ended `files` seconds ago, and jobs that ended `ended` seconds ago."""
    with transaction(engine) as conn:
        store.drop_old(conn, files, ended)
