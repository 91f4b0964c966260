"""Pulls a mailbox: takes its lease, runs one batch, and gives the lease back with the verdict.

After a fault of the mailbox the next pull waits, longer each time, or until somebody reauthorizes the mailbox. A fault on our
side, the broker's or Postgres's, does not count against it.
"""

import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, TypeVar

import structlog

from ops.errors import OpsError
from ops.runtime.db import Connection, Engine, passes, persist
from ops.runtime.vault import Vault
from ops.telemetry import mail_metrics, table
from ops.telemetry.pulse import Recent
from ops.telemetry.tracing.mail_spans import Pull, during
from ops.telemetry.tracing.switch import active
from pipeline.errors import Unreadable
from pipeline.mail import settle_pull
from pipeline.mail.settle_pull import Done, Failed, Failure, HandedBack, Outcome, SetAside, Succeeded, Verdict
from pipeline.store.config import catalog
from pipeline.store.mail import leases as mail_leases
from pipeline.store.mail import mailboxes
from pipeline.store.mail.leases import PullLease
from schemas.mailbox import Mailbox
from workers.mail.mailbox_session import Away, Refused, SourceError, Throttled
from workers.mail.pull.batch import LEASE, Fenced, PullBatch
from workers.mail.pull.memory_budget import MemoryBudget
from workers.mail.pull.publish import MailIntake, Untaken
from workers.mail.pull.sessions import Sessions

LONGEST: Final = 900.0  # seconds for one batch; the largest mail over a slow line takes less
STORE_SECONDS: Final = 10.0  # for retries while Postgres is unavailable

_log = structlog.get_logger()
_Result = TypeVar("_Result")


class Puller:
    """Any number of threads may call `pull`; the lease keeps two of them, in any process, from pulling the same mailbox."""

    def __init__(self, engine: Engine, vault: Vault, sessions: Sessions, intake: MailIntake, owner: str) -> None:
        """`owner` is unique to this process."""
        self._engine = engine
        self._vault = vault
        self._sessions = sessions
        self._intake = intake
        self._owner = owner
        self._memory = MemoryBudget()
        self._lock = threading.Lock()
        self._leases: dict[PullLease, float] = {}  # with when each was taken, in monotonic seconds
        self.trouble = Recent()  # why Postgres cannot be reached just now

    def pull(self, mailbox_id: int, *, going_on: bool = False) -> Outcome:
        """One batch. `more`: the caller enqueues the next. Raises only if Postgres stays unavailable for `STORE_SECONDS`."""
        now = datetime.now(UTC)
        lease = self._in(lambda conn: mail_leases.take(conn, mailbox_id, self._owner, now, now + LEASE))
        if lease is None:
            return "busy"
        with self._lock:
            self._leases[lease] = time.monotonic()
        try:
            try:
                mailbox = self._in(lambda conn: mailboxes.get(conn, mailbox_id, self._vault.decrypt))
            except (OpsError, Unreadable) as error:
                return self._not_opened(lease, error)
            if mailbox is None:
                return "busy"
            began = time.monotonic()
            outcome = self._traced(lease, mailbox, now, going_on=going_on)
            mail_metrics.observe_pull(mailbox.kind, outcome, time.monotonic() - began)
            return outcome
        finally:
            with self._lock:
                self._leases.pop(lease, None)

    def beat(self) -> None:
        """Extend the leases of running batches. A process that hangs loses its leases; a batch longer than `LONGEST`, too."""
        with self._lock:
            leases = [lease for lease, since in self._leases.items() if time.monotonic() - since < LONGEST]
        if leases:
            self._in(lambda conn: mail_leases.extend(conn, leases, datetime.now(UTC) + LEASE))

    def let_go(self) -> None:
        """Give back the leases of unfinished batches, which then write nothing more; others need not wait for their expiry."""
        with self._lock:
            leases = list(self._leases)

        def give_back(conn: Connection) -> None:
            for lease in leases:
                mail_leases.hand_back(conn, lease, datetime.now(UTC))

        self._in(give_back)

    def _traced(self, lease: PullLease, mailbox: Mailbox, began: datetime, *, going_on: bool) -> Outcome:
        spans = active()
        if spans is None:
            return self._pulled(lease, mailbox, began, going_on=going_on)
        key = self._in(lambda conn: catalog.tenant_key(conn, mailbox.tenant, self._vault.decrypt))
        pull = Pull(spans, mailbox, key)
        with during(pull):
            outcome = self._pulled(lease, mailbox, began, going_on=going_on)
        pull.record(outcome)
        return outcome

    def _pulled(self, lease: PullLease, mailbox: Mailbox, began: datetime, *, going_on: bool) -> Outcome:
        try:
            done = self._batch(lease, mailbox, going_on=going_on)
        except Fenced:
            return "fenced"
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not keep the mailbox from being pulled again
            return self._failed(lease, mailbox, error)
        now = datetime.now(UTC)
        verdict = settle_pull.after_batch(lease.failures, done, mailbox.poll, began, now, _random())
        outcome = self._settle(lease, mailbox, verdict, now)
        if isinstance(verdict, Succeeded):
            level = _log.info if done.mails else _log.debug
            level("mailbox_pulled", mailbox=mailbox.name, mails=done.mails, more=done.more)
        return outcome

    def _failed(self, lease: PullLease, mailbox: Mailbox, error: Exception) -> Outcome:
        failure, now = _failure_of(error), datetime.now(UTC)
        verdict = settle_pull.after_failure(lease.failures, failure, now, _random())
        if isinstance(verdict, HandedBack):
            return self._interrupted(lease, mailbox, verdict, failure.detail)
        if failure.fault == "internal":
            _log.error("pull_failed", mailbox=mailbox.name, exc_info=error)
        return self._settle(lease, mailbox, verdict, now)

    def _settle(self, lease: PullLease, mailbox: Mailbox, verdict: Verdict, now: datetime) -> Outcome:
        event = self._in(lambda conn: settle_pull.settle(conn, lease, verdict, now))
        if isinstance(verdict, Failed):
            about = {"outcome": verdict.outcome, "error": verdict.error, "failures": lease.failures + 1}
            _log.warning("mailbox_failed", mailbox=mailbox.name, **about)
        elif isinstance(verdict, SetAside) and event is not None:
            table.REAUTHORIZATIONS.labels(mailbox.kind).inc()
            _log.error("mailbox_needs_reauthorization", mailbox=mailbox.name, error=verdict.error)
        return verdict.outcome

    def _interrupted(self, lease: PullLease, mailbox: Mailbox, verdict: HandedBack, detail: str) -> Outcome:
        _log.warning("pull_interrupted", mailbox=mailbox.name, error=detail)
        try:
            return self._settle(lease, mailbox, verdict, datetime.now(UTC))
        except Exception as failure:
            if not passes(failure):
                raise
            return verdict.outcome

    def _not_opened(self, lease: PullLease, error: Exception) -> Outcome:
        """The stored settings cannot be decrypted here: recorded as a failure, for operators to see."""
        now = datetime.now(UTC)
        verdict = settle_pull.unreadable(str(error), now)
        self._in(lambda conn: mail_leases.failed(conn, lease, verdict.error, now, verdict.next_pull))
        _log.error("mailbox_not_opened", mailbox_id=lease.mailbox_id, error=verdict.error)
        return verdict.outcome

    def _batch(self, lease: PullLease, mailbox: Mailbox, *, going_on: bool) -> Done:
        """Runs the batch. A kept session may have been closed while it was idle; the batch is then run again with a new one."""
        session, kept = self._sessions.take(mailbox)
        while True:
            try:
                done = PullBatch(self._engine, self._intake, lease, mailbox, session, self._memory).run(going_on=going_on)
            except Away:
                session.close()
                if not kept:
                    raise
                session, kept = self._sessions.take(mailbox, anew=True)
            except BaseException:
                session.close()
                raise
            else:
                if done.more:
                    self._sessions.keep(mailbox, session)
                else:
                    session.close()
                return done

    def _in(self, work: Callable[[Connection], _Result]) -> _Result:
        result = persist(self._engine, STORE_SECONDS, work, lost=self._in_trouble)
        self.trouble.clear()
        return result

    def _in_trouble(self, error: BaseException | None, _tries: int) -> None:
        self.trouble.note(f"Postgres: {type(error).__name__}")


def _failure_of(error: Exception) -> Failure:
    """An exception as a `Failure` of `settle_pull`."""
    if isinstance(error, Refused):
        return Failure("refused", str(error), certain=error.certain)
    if isinstance(error, Throttled):
        return Failure("throttled", str(error), error.seconds)
    if isinstance(error, SourceError):
        return Failure("away", str(error))
    if isinstance(error, Untaken) or passes(error):
        return Failure("ours", str(getattr(error, "orig", None) or error)[:300])
    return Failure("internal", f"internal: {type(error).__name__}")


def _random() -> float:
    return random.random()  # noqa: S311 - jitter, not security
