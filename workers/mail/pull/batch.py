"""One batch of one mailbox: new mails of its folders, then a part of the backfill.

Mails are durable in the broker before they are recorded, and recorded in one transaction with the cursor that moves past them.
If the process dies in between, they are fetched and published again, and the ledger drops the duplicates.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from ops.runtime.db import Connection, Engine, transaction
from ops.telemetry import mail_metrics, table
from pipeline.mail.settle_pull import Done
from pipeline.store.mail import items as mail_items
from pipeline.store.mail import leases as mail_leases
from pipeline.store.mail import unreadable_folders
from pipeline.store.mail.items import Position
from pipeline.store.mail.leases import PullLease
from schemas.mailbox import EVERY_FOLDER, Lane, Mailbox
from workers.mail.mailbox_session import (
    MAX_BYTES,
    MAX_MAILS,
    MAX_SECONDS,
    Gone,
    MailboxSession,
    NoFolder,
    PullBounds,
    Pulled,
    Throttled,
)
from workers.mail.pull.folder_errors import FolderErrors
from workers.mail.pull.held_mails import HeldMails
from workers.mail.pull.memory_budget import MemoryBudget
from workers.mail.pull.publish import MailIntake, Untaken

LEASE: Final = timedelta(seconds=30)  # extended by a heartbeat while the batch is under way
RECONCILE: Final = timedelta(days=1)  # between two comparisons of all mails on the server with all that are held

#: The golden ratio: consecutive epochs begin at folders spread evenly, so each folder is near a start within a few batches.
_STEP: Final = 0.6180339887498949

#: A key of a generation that does not exist: every held mail has a key of another generation.
ANY: Final = "-/-/"

_log = structlog.get_logger()


class Fenced(Exception):
    """Another process has the lease, or the mailbox is no longer to be pulled: nothing may be written."""


@dataclass
class PullBudget:
    """The rest of a batch's bounds, shared by its pulls."""

    mails: int = MAX_MAILS
    size: int = MAX_BYTES
    until: float = field(default_factory=lambda: time.monotonic() + MAX_SECONDS)

    @property
    def spent(self) -> bool:
        """Whether too little is left for another pull."""
        return self.mails <= 0 or self.size <= 0 or time.monotonic() > self.until - MAX_SECONDS / 3

    def bounds(self, hold: Callable[[int], None]) -> PullBounds:
        """The bounds of the next pull."""
        return PullBounds(self.mails, self.size, self.until, hold)

    def spend(self, pulled: Pulled) -> None:
        """Subtract the mails of a pull."""
        self.mails -= len(pulled.mails)
        self.size -= sum(len(mail.raw) for mail in pulled.mails)


class PullBatch:
    """One batch under a lease. Raises a `SourceError`, `Untaken`, `Fenced`, or what SQLAlchemy raises."""

    def __init__(
        self,
        engine: Engine,
        intake: MailIntake,
        lease: PullLease,
        mailbox: Mailbox,
        session: MailboxSession,
        memory: MemoryBudget | None = None,
    ) -> None:
        """`memory` is shared with all other batches of the process."""
        self._engine = engine
        self._intake = intake
        self._lease = lease
        self._mailbox = mailbox
        self._session = session
        self._memory = memory or MemoryBudget()
        self._held = 0  # bytes of `memory`
        self._known = HeldMails(engine, mailbox.id)
        self._budget = PullBudget()
        self._mails = 0
        self._more = False
        self._moved = False
        self._positions: dict[tuple[str, Lane], Position] = {}
        self._folder_errors = FolderErrors()
        self._began = lease.began_at

    def run(self, *, going_on: bool) -> Done:
        """Pull. `going_on`: right after another batch, so only the first folder is checked for new mail before the backfill.

        If the server throttles after some mails were stored, the batch is not a failure; the rest comes later.
        """
        try:
            return self._run(going_on=going_on)
        except Throttled as error:
            if not self._moved:
                raise
            return Done(self._mails, False, None, error.seconds)

    def _run(self, *, going_on: bool) -> Done:
        with transaction(self._engine) as conn:
            self._positions = mail_items.positions(conn, self._mailbox.id)
            self._folder_errors = FolderErrors(unreadable_folders.errors(conn, self._mailbox.id))
        folders = self._folders()
        done = self._round(folders, going_on=going_on)
        if self._folder_errors.changed(folders):
            with self._fenced() as conn:
                self._folder_errors.note(conn, self._mailbox, folders, datetime.now(UTC))
        return done

    def _round(self, folders: Sequence[str], *, going_on: bool) -> Done:
        turn = int(self._lease.epoch * _STEP % 1 * len(folders))
        ordered = [*folders[turn:], *folders[:turn]]
        looked_at = 1 if going_on else len(ordered)
        for folder in ordered[:looked_at]:
            if self._budget.spent:
                return self._done(more=True)
            self._more |= self._try(folder, "new")
        self._reconcile(folders)
        for folder in ordered:
            while self._unfinished(folder):
                if self._budget.spent:
                    return self._done(more=True)
                if not self._try(folder, "backfill"):
                    break
        # The other folders are checked as well, so that their new mail need not wait for the next poll.
        for folder in () if self._more else ordered[looked_at:]:
            if self._budget.spent:
                return self._done(more=self._mails > 0)  # too many folders for one batch; the next begins at another
            begun = (folder, "new") in self._positions
            self._more |= self._try(folder, "new") or (not begun and self._unfinished(folder))
        return self._done(more=self._more)

    def _done(self, *, more: bool) -> Done:
        return Done(self._mails, more, self._folder_errors.trouble)

    def _try(self, folder: str, lane: Lane) -> bool:
        """One pull; whether there is more in that lane. A folder that cannot be read is recorded and skipped."""
        try:
            more = self._pull(folder, lane)
        except NoFolder as error:
            self._folder_errors.failed[folder] = str(error)
            return False
        self._folder_errors.read.add(folder)
        return more

    def _folders(self) -> list[str]:
        folders = list(self._mailbox.folders)
        return list(self._session.folders()) if EVERY_FOLDER in folders else folders

    def _unfinished(self, folder: str) -> bool:
        position = self._positions.get((folder, "backfill"))
        return position is not None and position.finished_at is None

    def _pull(self, folder: str, lane: Lane) -> bool:
        """One pull, stored; whether there is more in that lane. A cursor that is no longer valid is replaced."""
        if (folder, lane) not in self._positions:
            self._begin(folder)
        position = self._positions[folder, lane]
        try:
            pulled = self._session.pull(folder, lane, position.cursor, self._budget.bounds(self._hold), self._known)
            self._budget.spend(pulled)
            self._store(position, pulled)
        except Gone as error:
            _log.info("mailbox_resynced", mailbox=self._mailbox.name, folder=folder, reason=str(error))
            table.RESYNCS.labels(self._mailbox.kind).inc()
            self._begin(folder)
            return False  # existing mails are in the backfill now; true could loop on a server that invalidates every cursor
        finally:
            self._memory.give(self._held)
            self._held = 0
        mail_metrics.observe_mails(self._mailbox.kind, lane, len(pulled.mails), pulled.missing)
        if pulled.missing:
            _log.warning("mails_not_given", mailbox=self._mailbox.name, folder=folder, lane=lane, mails=pulled.missing)
        return pulled.more

    def _hold(self, size: int) -> None:
        """Wait until so many bytes fit into memory; only then are they fetched. Replaces what was held before."""
        self._memory.give(self._held)
        self._held = 0
        try:
            self._held = self._memory.take(size, self._budget.until - MAX_SECONDS / 3)
        except TimeoutError as error:
            raise Untaken(str(error)) from None

    def _begin(self, folder: str) -> None:
        """Store the first cursors of both lanes of a folder."""
        # A folder that appears on the server later may hold mails that arrived since the mailbox was first read.
        appeared = EVERY_FOLDER in self._mailbox.folders and self._lease.began_at is not None
        again = appeared or (folder, "new") in self._positions or self._known.older(folder, ANY)
        begun = self._session.begin(folder)
        now = datetime.now(UTC)
        finished = None if begun.backfill else now
        backfill = Position(folder, "backfill", begun.backfill or {}, 0, begun.total, finished, again, now)
        positions = (Position(folder, "new", begun.new), backfill)
        with self._fenced() as conn:
            self._began = mail_leases.begin(conn, self._lease, now)
            for position in positions:
                mail_items.put_position(conn, self._mailbox.id, position, now, finished=position.finished_at is not None)
        for position in positions:
            self._positions[folder, position.lane] = position

    def _reconcile(self, folders: Sequence[str]) -> None:
        """Once a day, if no backfill is unfinished, start another, which fetches the mails that were missed."""
        now = datetime.now(UTC)
        last = self._lease.reconciled_at or self._began
        readable = list(filter(self._folder_errors.can_read, folders))
        if last is None or now - last < RECONCILE or any(map(self._unfinished, readable)):
            return
        fresh = []
        for folder in readable:
            try:
                begun = self._session.begin(folder)
            except NoFolder:
                continue
            finished = None if begun.backfill else now
            fresh.append(Position(folder, "backfill", begun.backfill or {}, 0, begun.total, finished, True, now))
        with self._fenced() as conn:
            mail_leases.reconciled(conn, self._lease, now)
            for position in fresh:
                mail_items.put_position(conn, self._mailbox.id, position, now, finished=position.finished_at is not None)
        for position in fresh:
            self._positions[position.folder, "backfill"] = position

    def _store(self, position: Position, pulled: Pulled) -> None:
        mails = pulled.mails
        if position.lane == "backfill":
            # A mail that the server received after the mailbox was first read was missed; it counts as new.
            before = self._began.replace(microsecond=0) if position.again and self._began else None
            mails = [replace(mail, backfill=before is None or mail.internal_date < before) for mail in mails]
        items = self._intake.accept(self._mailbox, mails)
        finished = position.lane == "backfill" and not pulled.more
        now = datetime.now(UTC)
        total = position.total if pulled.total is None else pulled.total
        moved = replace(position, cursor=pulled.cursor, done=position.done + pulled.seen, total=total)
        if finished:
            moved = replace(moved, finished_at=now)
        if items or pulled.kept or pulled.renamed or moved != position:
            with self._fenced() as conn:
                mail_items.rename(conn, self._mailbox.id, pulled.renamed)
                mail_items.add(conn, self._mailbox.id, [*items, *pulled.kept], now)
                mail_items.put_position(conn, self._mailbox.id, moved, now, finished=finished)
            self._moved = True
        self._positions[position.folder, position.lane] = moved
        self._mails += len(items)

    @contextmanager
    def _fenced(self) -> Iterator[Connection]:
        """A transaction under the lease. Raises `Fenced`, with nothing written, if the lease is lost."""
        with transaction(self._engine) as conn:
            if not mail_leases.still_mine(conn, self._lease, datetime.now(UTC) + LEASE):
                raise Fenced
            yield conn
