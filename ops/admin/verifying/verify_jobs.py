"""Shares a verification among processes: each takes parts of the chain ids, all in one snapshot of the database.

A process tells its parent what it finds through a pipe, and ends when the parent does not listen any more.
"""

from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from typing import Any, Final, cast

from sqlalchemy import Connection

from ops.admin.read_session import open_engine, snapshot
from ops.errors import OpsError, one_line
from ops.runtime.blobs import open_blobs
from ops.settings import Settings
from pipeline.ledger.verifying.verify import Keys, Verifier
from pipeline.store.ledger import scan
from pipeline.store.ledger.scan import Scope
from schemas.ledger.fault import Fault, Verified

PARTS: Final = 4  # for each process: one that is done early has not far to wait for the others


def verify_in_jobs(
    settings: Settings,
    conn: Connection,
    scope: Scope,
    keys: Keys | None,
    jobs: int,
    report: Callable[[Fault], None],
    progress: Callable[[int], None],
) -> Verified:
    """As `pipeline.ledger.verifying.verify.verify`, in so many processes. Raises `OpsError` if one of them cannot go on."""
    shared = scan.export_snapshot(conn)
    context = get_context("spawn")
    pipes: dict[Any, int] = {}
    processes = []
    try:
        for number in range(jobs):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=_work, args=(theirs, settings, shared, scope, keys, number, jobs), daemon=True, name=f"verify-{number}"
            )
            process.start()
            theirs.close()
            processes.append(process)
            pipes[ours] = 0
        return _gathered(pipes, report, progress)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _gathered(pipes: dict[Any, int], report: Callable[[Fault], None], progress: Callable[[int], None]) -> Verified:
    done: list[Verified] = []
    open_pipes = set(pipes)
    while open_pipes:
        for pipe in cast(list[Any], wait(list(open_pipes))):
            try:
                told = pipe.recv()
            except EOFError:
                raise OpsError("a process of the verification ended before it was done: there is no verdict") from None
            match told:
                case Fault():
                    report(told)
                case int():
                    pipes[pipe] = told
                    progress(sum(pipes.values()))
                case Verified():
                    done.append(told)
                    open_pipes.discard(pipe)
                case str():
                    raise OpsError(told)
    return Verified(*(sum(getattr(each, name) for each in done) for name in ("entries", "chains", "faults")))


def _work(
    pipe: "Pipe[Any, Any]", settings: Settings, shared: str, scope: Scope, keys: Keys | None, number: int, jobs: int
) -> None:
    try:
        with open_engine(settings) as engine, snapshot(engine, shared) as conn:
            verifier = Verifier(conn, keys, open_blobs(settings).get, pipe.send, pipe.send)
            parts = jobs * PARTS
            for part in range(number, parts + 1, jobs):  # the last one is that of rows without an id
                verifier.part(Scope(scope.tenant, part=(part, parts)))
            if number == 0:
                verifier.everywhere(scope)
            pipe.send(verifier.verified())
    except BrokenPipeError:
        pass
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent has to know
        pipe.send(f"a process of the verification failed: {one_line(error)}")
