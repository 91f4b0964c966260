"""The verifier: verifies what is new every few minutes, and one of N parts of everything every day.

It reads with the rights of waxseal_verifier, and writes nothing but how far it came and what it found. If it dies, what it had
not noted is verified again. Two of them do the same work twice, and harm nothing.
"""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from ops.admin.verifying.verify_ledger import keep_claims, next_slice, note, verification
from ops.errors import OpsError, one_line
from ops.settings import Settings
from pipeline.store.admin.verifications import Part
from schemas.ledger.fault import Fault, Verified
from workers.process import Process
from workers.rounds import Rounds

DAY: Final = timedelta(days=1)
RETRY: Final = (5.0, 60.0)  # seconds after a failure, first and longest wait
TOLD: Final = 100  # faults of one run that are logged

_log = structlog.get_logger()


class Stopped(Exception):
    """The process is to stop; the run is not noted."""


class VerifierWork:
    """Takes turns: what is new, and a slice when a day has passed since the last one."""

    def __init__(self, settings: Settings, process: Process) -> None:
        self._settings = settings
        self._process = process
        self.beat: Callable[[], None] = lambda: None
        self.trouble: str | None = None
        self._pause = RETRY[0]

    def turn(self) -> float:
        """Verify what is due; give the seconds until the next turn. Raises what Postgres raises."""
        try:
            self._verify_due()
        except Stopped:
            return 0.0
        except OpsError as error:
            self.trouble = one_line(error)
            _log.warning("not_verified", error=self.trouble, again_in=round(self._pause, 1))
            rest, self._pause = self._pause, min(self._pause * 2, RETRY[1])
        else:
            rest, self._pause = self._settings.verify_every, RETRY[0]
        return rest * random.uniform(0.9, 1.1)  # noqa: S311 - several processes do not stay in step; guards nothing

    def _verify_due(self) -> None:
        self._run(None)
        due = next_slice(self._settings, self._settings.verify_nights, datetime.now(UTC) - DAY)
        if due is not None:
            self._run(due)

    def _run(self, slice_: int | None) -> None:
        began, told = datetime.now(UTC), 0
        parts = self._settings.verify_nights
        faulty: set[str | None] = set()

        def report(fault: Fault) -> None:
            nonlocal told
            told += 1
            faulty.add(fault.tenant)
            if told <= TOLD:
                where = {"tenant": fault.tenant, "chain": fault.chain, "seq": fault.seq}
                _log.error("fault", kind=fault.kind, detail=fault.detail, **where)

        with verification(self._settings, report) as ledger:
            found = ledger.new(self._progress) if slice_ is None else ledger.slice(slice_, parts, self._progress)
            unchecked = ledger.keys is None
            made = []
            for each in ledger.claims(faulty):
                self._progress(0)  # places that are slow are asked once for each tenant
                made.append(each)
        part: Part = "new" if slice_ is None else "slice"
        unkept = keep_claims(self._settings, made, part)
        why = note(self._settings, found, began, part, None if slice_ is None else (slice_, parts)) or unkept
        self._tell(part, found, began, why)
        self.trouble = "WAXSEAL_KEYS is not set: fingerprints are not verified" if unchecked else why

    def _tell(self, part: str, found: Verified, began: datetime, why: str | None) -> None:
        seconds = round((datetime.now(UTC) - began).total_seconds(), 3)
        _log.info("verified", part=part, entries=found.entries, chains=found.chains, faults=found.faults, seconds=seconds)
        if why is not None:
            _log.warning("verification_not_recorded", error=why)

    def _progress(self, _entries: int) -> None:
        self.beat()
        if self._process.stop.is_set():
            raise Stopped


def run(settings: Settings) -> int:
    """Run the verifier until SIGTERM or SIGINT. Returns the exit status."""
    with Process(settings, "verifier", "database_url", "keys") as process:
        work = VerifierWork(settings, process)
        rounds = Rounds(process.stop, work.turn)
        rounds.trouble = None  # it is ready at once, because its first round may take hours
        work.beat = process.serve({"database": process.database(lambda: rounds.trouble or work.trouble)})
        rounds.run(work.beat)
    return process.status
