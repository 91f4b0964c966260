"""Shares a verification among processes, all in one snapshot of the database. The process that asks for it is one of them.

Whoever is free takes the next piece. A process that was started for it tells its parent what it finds through a pipe, and ends
when the parent does not listen any more.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from multiprocessing.context import SpawnContext
from multiprocessing.sharedctypes import Synchronized
from typing import Any, Final, cast

from sqlalchemy import Connection

from ops.admin.read_session import open_engine, snapshot
from ops.errors import OpsError, one_line
from ops.runtime import gc_tuning
from ops.runtime.blobs import open_blobs
from ops.settings import Settings
from pipeline.ledger.verifying.verify import Keys, Verifier
from pipeline.store.ledger import scan
from pipeline.store.ledger.scan import Scope
from schemas.ledger.fault import Fault, Verified

PARTS: Final = 16  # for each process: one that has nothing to do any more has not far to wait for the others
SECONDS: Final = 60.0  # for the counter of pieces, which is held for microseconds

Report = Callable[[Fault], None]
Progress = Callable[[int], None]


class Pieces:
    """What is to be done: piece 0 is what concerns all chains, the others are parts of the chain ids. Each is given once."""

    def __init__(self, context: SpawnContext, scope: Scope, jobs: int) -> None:
        self._scope = scope
        self._parts = jobs * PARTS
        self._given: Synchronized[int] = context.Value("i", 0)
        self.count = self._parts + 2  # the last one is that of rows without an id

    def each(self, verifier: Verifier) -> Iterator[None]:
        """Verifies pieces until none is left, and yields after each. Raises `OpsError` if a process died with the counter."""
        while (number := self._next()) < self.count:
            if number == 0:
                verifier.everywhere(self._scope)
            else:
                verifier.part(replace(self._scope, part=(number - 1, self._parts)))
            yield

    def _next(self) -> int:
        lock = self._given.get_lock()
        if not lock.acquire(timeout=SECONDS):
            raise OpsError("a process of the verification ended before it was done: there is no verdict")
        try:
            self._given.value += 1
            return self._given.value - 1
        finally:
            lock.release()


class Others:
    """The processes that were started: what they found, and how many pieces they have done."""

    def __init__(self, pipes: list["Pipe[Any, Any]"], report: Report, progress: Progress) -> None:
        self._pipes: list[Any] = pipes
        self._report = report
        self._progress = progress
        self._read = dict.fromkeys(self._pipes, 0)
        self._found: dict[Any, Verified] = {}
        self.done = 0

    def hear(self, own: int, seconds: float | None = 0.0) -> None:
        """Take in what they have told, or wait for that. Raises `OpsError` if one of them cannot go on. `own`: entries read."""
        if seconds is None and not self._pipes:
            raise OpsError("the processes of the verification ended before all was done: there is no verdict")
        for pipe in cast(list[Any], wait(self._pipes, seconds)):
            try:
                told = pipe.recv()
            except EOFError:
                raise OpsError("a process of the verification ended before it was done: there is no verdict") from None
            match told:
                case Fault():
                    self._report(told)
                case int():
                    self._read[pipe] = told
                case Verified():
                    self._found[pipe] = told
                    self.done += 1
                case None:
                    self._pipes.remove(pipe)
                case str():
                    raise OpsError(told)
        self._progress(own + sum(self._read.values()))

    def and_own(self, own: Verified) -> Verified:
        """What all of them found."""
        every = (own, *self._found.values())
        return Verified(*(sum(getattr(each, name) for each in every) for name in ("entries", "chains", "faults")))


def verify_in_jobs(
    settings: Settings,
    conn: Connection,
    scope: Scope,
    keys: Keys | None,
    jobs: int,
    report: Report,
    progress: Progress,
    first: Callable[[], object] = lambda: None,
) -> Verified:
    """As `pipeline.ledger.verifying.verify.verify`, in so many processes. Raises `OpsError` if one of them cannot go on.

    This process does `first` before it shares in the work, while the others start.
    """
    context = get_context("spawn")
    pieces = Pieces(context, scan.with_logs(conn, scope), jobs)
    with _started(context, jobs - 1, (settings, scan.export_snapshot(conn), keys, pieces)) as pipes:
        others = Others(pipes, report, progress)
        first()
        verifier = Verifier(conn, keys, open_blobs(settings).get, report, others.hear)
        own = sum(1 for _ in pieces.each(verifier))
        while own + others.done < pieces.count:
            others.hear(verifier.verified().entries, None)
        return others.and_own(verifier.verified())


@contextmanager
def _started(context: SpawnContext, count: int, asked: tuple[Any, ...]) -> Iterator[list["Pipe[Any, Any]"]]:
    """Processes that work until the block ends, and the pipes through which they tell what they find."""
    pipes, processes = [], []
    try:
        for number in range(count):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(theirs, *asked), daemon=True, name=f"verify-{number}")
            process.start()
            theirs.close()
            processes.append(process)
            pipes.append(ours)
        yield pipes
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _work(pipe: "Pipe[Any, Any]", settings: Settings, shared: str, keys: Keys | None, pieces: Pieces) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the parent ends this process
    gc_tuning.tune()
    try:
        with open_engine(settings) as engine, snapshot(engine, shared) as conn:
            verifier = Verifier(conn, keys, open_blobs(settings).get, pipe.send, pipe.send)
            for _ in pieces.each(verifier):
                pipe.send(verifier.verified())
        pipe.send(None)
    except BrokenPipeError:
        pass
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent has to know
        pipe.send(f"a process of the verification failed: {one_line(error)}")
