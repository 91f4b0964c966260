"""Jobs on a tenant's ledger: verification and export. They take CPU for long, so they run in a process of their own."""

from collections.abc import Callable
from dataclasses import asdict
from itertools import count
from typing import IO, Final, cast
from uuid import UUID

from sqlalchemy import Engine

from ops.admin.jobs.arguments import OfLedger
from ops.admin.read_session import open_engine
from ops.admin.verification import Subject, whole_ledger
from ops.admin.verifying.verify_ledger import Wanted, verification
from ops.admin.views import View
from ops.errors import OpsError
from ops.runtime.db import transaction
from ops.settings import Settings
from pipeline.store import jobs as store
from schemas.ledger.fault import Fault

MOST_FAULTS: Final = 200  # that a job's result names
MOST_LOST: Final = 200
MOST_BYTES: Final = 256 * 1024 * 1024  # of an exported file
PART: Final = 1024 * 1024  # bytes

Tell = Callable[[int], None]  # how many entries are done


def verify(settings: Settings, tenant: str | None, arguments: OfLedger, tell: Tell) -> View:
    """Verifies, as `waxseal verify` does; `faults` names the first of them. Nothing is recorded but the job."""
    faults: list[Fault] = []

    def report(fault: Fault) -> None:
        if len(faults) < MOST_FAULTS:
            faults.append(fault)

    with verification(settings, report) as ledger:
        found = ledger.all_of(Wanted(tenant, arguments.subject), tell)
        skipped = [] if ledger.keys is not None else ["fingerprint", "chain key"]
    return {
        "verdict": found.verdict,
        "entries": found.entries,
        "chains": found.chains,
        "faults": found.faults,
        "named": [asdict(each) for each in faults],
        "not_checked": skipped,
    }


def export(settings: Settings, tenant: str, arguments: OfLedger, job: tuple[int, UUID], tell: Tell) -> View:
    """Writes a bundle, as `waxseal export` does, into the job's file. Raises `OpsError` if it is too large."""
    lost: list[str] = []
    with open_engine(settings) as engine, whole_ledger(settings, Subject(tenant, arguments.subject)) as ledger:
        out = _Parts(engine, *job)
        entries = ledger.export(cast(IO[bytes], out), tell, lost.append)
        claim = ledger.claim(complete=not lost)
        out.flush()
    return {"entries": entries, "bytes": out.size, "lost": lost[:MOST_LOST], "lost_count": len(lost), **claim}


class _Parts:
    """A file in parts, in Postgres: any console process can serve it, and it goes with the job."""

    def __init__(self, engine: Engine, id_: int, lease: UUID) -> None:
        self._engine, self._id, self._lease = engine, id_, lease
        self._numbers = count()
        self._waiting = bytearray()
        self.size = 0

    def write(self, data: bytes) -> int:
        """Takes the next bytes. Raises `OpsError` when the file becomes too large."""
        self.size += len(data)
        if self.size > MOST_BYTES:
            raise OpsError(f"the file is larger than {MOST_BYTES // 2**20} MiB: `waxseal export` writes any size")
        self._waiting += data
        while len(self._waiting) >= PART:
            self._put(bytes(self._waiting[:PART]))
            del self._waiting[:PART]
        return len(data)

    def flush(self) -> None:
        """Writes what waits; call it at the end."""
        self._put(bytes(self._waiting))
        self._waiting.clear()

    def _put(self, data: bytes) -> None:
        with transaction(self._engine) as conn:
            store.add_part(conn, self._id, self._lease, next(self._numbers), data)
