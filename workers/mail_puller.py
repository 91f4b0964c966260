"""Pulls a mailbox: takes its lease, runs one batch, and gives the lease back with what became of it.

What goes wrong is the mailbox's own affair: it waits longer from time to time, or for somebody to authorise it anew. What goes
wrong with us, the broker or Postgres, is not held against it.
"""

import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeVar

import structlog

from ops import mail_metrics
from ops.db import Connection, Engine, passes, persist
from ops.errors import OpsError
from ops.pulse import Recent
from ops.secrets import Vault
from pipeline.backoff import JITTER
from pipeline.errors import Unreadable
from pipeline.store import mail_leases, mailboxes
from pipeline.store.mail_leases import Lease
from schemas.mailbox import Mailbox
from workers.mail_batch import LEASE, Batch, Done, Fenced
from workers.mail_intake import MailIntake, Untaken
from workers.mail_room import Room
from workers.mail_sessions import Sessions
from workers.mail_source import Away, Refused, SourceError, Throttled

BACKOFF: Final = (30.0, 900.0)  # seconds after the first failure and the longest; doubled each time
DOUBTS: Final = 3  # refusals without a reason, after which they are believed
TELL: Final = 8  # failures in a row, about an hour, after which operators hear of it
AGAIN: Final = 5.0  # seconds, after a fault of ours
SLOW: Final = 20.0  # seconds for a batch, after which the mailbox is pulled beside the others
LONGEST: Final = 900.0  # seconds for one batch, which even the largest mail over a slow line does not need
STORE_SECONDS: Final = 10.0  # for a database that is away

Outcome = Literal["done", "more", "busy", "away", "throttled", "refused", "fenced", "internal"]

_log = structlog.get_logger()
_Result = TypeVar("_Result")


class Puller:
    """Any number of threads may pull; never two the same mailbox, in whatever process."""

    def __init__(self, engine: Engine, vault: Vault, sessions: Sessions, intake: MailIntake, owner: str) -> None:
        """`owner` names this process, and no other."""
        self._engine = engine
        self._vault = vault
        self._sessions = sessions
        self._intake = intake
        self._owner = owner
        self._room = Room()
        self._lock = threading.Lock()
        self._leases: dict[Lease, float] = {}  # with when each was taken, in monotonic seconds
        self.trouble = Recent()  # why Postgres cannot be reached just now

    def pull(self, mailbox_id: int, *, going_on: bool = False) -> Outcome:
        """One batch. `more`: the next is to be enqueued. Nothing is raised for what a mailbox, the broker or Postgres does."""
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
            outcome = self._pulled(lease, mailbox, now, going_on=going_on)
            mail_metrics.observe_pull(mailbox.kind, outcome, time.monotonic() - began)
            return outcome
        finally:
            with self._lock:
                self._leases.pop(lease, None)

    def beat(self) -> None:
        """Extend the leases of what is under way. A process that hangs does not, and loses them; so does a thread, later."""
        with self._lock:
            leases = [lease for lease, since in self._leases.items() if time.monotonic() - since < LONGEST]
        if leases:
            self._in(lambda conn: mail_leases.extend(conn, leases, datetime.now(UTC) + LEASE))

    def let_go(self) -> None:
        """Give back the leases of what is not done, so that another need not wait for their end. Nothing more is written."""
        with self._lock:
            leases = list(self._leases)

        def give_back(conn: Connection) -> None:
            for lease in leases:
                mail_leases.hand_back(conn, lease, datetime.now(UTC))

        self._in(give_back)

    def _pulled(self, lease: Lease, mailbox: Mailbox, now: datetime, *, going_on: bool) -> Outcome:
        try:
            done = self._batch(lease, mailbox, going_on=going_on)
        except Fenced:
            return "fenced"
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not keep the mailbox from being pulled again
            return self._went_wrong(lease, mailbox, error)
        return self._succeeded(lease, mailbox, done, now)

    def _went_wrong(self, lease: Lease, mailbox: Mailbox, error: Exception) -> Outcome:
        if isinstance(error, Refused):
            return self._refused(lease, mailbox, error)
        if isinstance(error, Throttled):
            return self._failed(lease, mailbox, error, "throttled", error.seconds)
        if isinstance(error, SourceError):
            return self._failed(lease, mailbox, error, "away")
        if isinstance(error, Untaken) or passes(error):
            return self._not_its_fault(lease, mailbox, error)
        _log.error("pull_failed", mailbox=mailbox.name, exc_info=error)
        return self._failed(lease, mailbox, error, "internal")

    def _not_opened(self, lease: Lease, error: Exception) -> Outcome:
        """What is stored of it cannot be read here: it fails like any other, for operators to see."""
        now = datetime.now(UTC)
        self._in(lambda conn: mail_leases.failed(conn, lease, str(error), now, now + timedelta(seconds=BACKOFF[1])))
        _log.error("mailbox_not_opened", mailbox_id=lease.mailbox_id, error=str(error))
        return "internal"

    def _batch(self, lease: Lease, mailbox: Mailbox, *, going_on: bool) -> Done:
        """A kept session may have died of waiting: then once more with a new one."""
        session, kept = self._sessions.take(mailbox)
        while True:
            try:
                done = Batch(self._engine, self._intake, lease, mailbox, session, self._room).run(going_on=going_on)
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

    def _succeeded(self, lease: Lease, mailbox: Mailbox, done: Done, began: datetime) -> Outcome:
        now = datetime.now(UTC)
        slow = (now - began).total_seconds() > SLOW
        next_ = now if done.more else now + timedelta(seconds=(mailbox.poll if done.wait is None else done.wait) * _jitter())
        if done.trouble is not None and not done.more:
            return self._failed(lease, mailbox, Away(done.trouble), "away", mailbox.poll)
        self._in(lambda conn: mail_leases.succeeded(conn, lease, began, now, next_, enqueued=done.more and not slow, slow=slow))
        level = _log.info if done.mails else _log.debug
        level("mailbox_pulled", mailbox=mailbox.name, mails=done.mails, more=done.more)
        if lease.failures >= TELL:
            self._in(lambda conn: mailboxes.note(conn, mailbox.id, "mailbox_active", "it can be read again", now))
        return "more" if done.more and not slow else "done"

    def _failed(
        self, lease: Lease, mailbox: Mailbox, error: Exception, outcome: Outcome, seconds: float | None = None
    ) -> Outcome:
        now = datetime.now(UTC)
        first, longest = BACKOFF
        own = min(first * 2.0 ** min(lease.failures, 32), longest)
        next_ = now + timedelta(seconds=(own if seconds is None else max(seconds, 1.0)) * _jitter())
        text = str(error) if isinstance(error, SourceError) else f"internal: {type(error).__name__}"

        def write(conn: Connection) -> None:
            failed = mail_leases.failed(conn, lease, text, now, next_)
            if failed is not None and failed[0] == TELL:
                since = f"{failed[1]:%Y-%m-%d %H:%M:%SZ}"
                mailboxes.note(conn, mailbox.id, "mailbox_failing", f"nothing but failures since {since}: {text}", now)

        self._in(write)
        _log.warning("mailbox_failed", mailbox=mailbox.name, outcome=outcome, error=text, failures=lease.failures + 1)
        return outcome

    def _refused(self, lease: Lease, mailbox: Mailbox, error: Refused) -> Outcome:
        """Nobody else has to wait for that: the mailbox is not pulled until somebody has authorised it anew."""
        if not error.certain and lease.failures + 1 < DOUBTS:
            return self._failed(lease, mailbox, error, "away")
        now = datetime.now(UTC)

        def write(conn: Connection) -> bool:
            if mail_leases.failed(conn, lease, str(error), now, now) is None:
                return False
            moved = mailboxes.move_from(conn, mailbox.id, "active", "needs_reauthorization", now, str(error))
            if moved:  # or else somebody has paused it meanwhile
                mailboxes.note(conn, mailbox.id, "mailbox_needs_reauthorization", str(error), now)
            return moved

        if self._in(write):
            mail_metrics.REAUTHORIZATIONS.labels(mailbox.kind).inc()
            _log.error("mailbox_needs_reauthorization", mailbox=mailbox.name, error=str(error))
        return "refused"

    def _not_its_fault(self, lease: Lease, mailbox: Mailbox, error: Exception) -> Outcome:
        _log.warning("pull_interrupted", mailbox=mailbox.name, error=str(getattr(error, "orig", None) or error)[:300])
        next_ = datetime.now(UTC) + timedelta(seconds=AGAIN * _jitter())
        try:
            self._in(lambda conn: mail_leases.hand_back(conn, lease, next_))
        except Exception as failure:
            if not passes(failure):
                raise
        return "internal"

    def _in(self, work: Callable[[Connection], _Result]) -> _Result:
        result = persist(self._engine, STORE_SECONDS, work, lost=self._in_trouble)
        self.trouble.clear()
        return result

    def _in_trouble(self, error: BaseException | None, _tries: int) -> None:
        self.trouble.note(f"Postgres: {type(error).__name__}")


def _jitter() -> float:
    return 1 + JITTER * random.random()  # noqa: S311 - spreads the pulls, guards nothing
