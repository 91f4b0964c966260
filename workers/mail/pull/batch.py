"""One batch of one mailbox: what arrived in its folders, then some of what was there before.

Mails are durable in the broker before they are remembered, and remembered in one transaction with the cursor that passes them.
A process that dies anywhere in between fetches and publishes again; the ledger drops what it knows.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from ops.runtime.db import Connection, Engine, transaction
from ops.telemetry import mail_metrics
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
from workers.mail.pull.folder_errors import Readable
from workers.mail.pull.held_mails import HeldMails
from workers.mail.pull.memory_budget import MemoryBudget
from workers.mail.pull.publish import MailIntake, Untaken

LEASE: Final = timedelta(seconds=30)  # extended by a heartbeat while the batch is under way
RECONCILE: Final = timedelta(days=1)  # between two comparisons of all that there is with all that is held

#: Of the way round a mailbox's folders, from one batch's first to the next one's: no folder is far from any of the first few.
_STEP: Final = 0.6180339887498949

#: A key of no generation at all: any mail of a folder is held under a key of another.
ANY: Final = "-/-/"

_log = structlog.get_logger()


class Fenced(Exception):
    """The lease is another's by now, or the mailbox is not to be pulled any more: nothing may be written."""


@dataclass
class PullBudget:
    """What is left of a batch's bounds, shared by its pulls."""

    mails: int = MAX_MAILS
    size: int = MAX_BYTES
    until: float = field(default_factory=lambda: time.monotonic() + MAX_SECONDS)

    @property
    def spent(self) -> bool:
        """Whether there is no room for another pull."""
        return self.mails <= 0 or self.size <= 0 or time.monotonic() > self.until - MAX_SECONDS / 3

    def bounds(self, hold: Callable[[int], None]) -> PullBounds:
        """For the next pull."""
        return PullBounds(self.mails, self.size, self.until, hold)

    def spend(self, pulled: Pulled) -> None:
        """Count what a pull brought."""
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
        room: MemoryBudget | None = None,
    ) -> None:
        """`room` is shared with all other batches of the process."""
        self._engine = engine
        self._intake = intake
        self._lease = lease
        self._mailbox = mailbox
        self._session = session
        self._room = room or MemoryBudget()
        self._held = 0  # bytes, of the room
        self._known = HeldMails(engine, mailbox.id)
        self._budget = PullBudget()
        self._mails = 0
        self._more = False
        self._moved = False
        self._positions: dict[tuple[str, Lane], Position] = {}
        self._readable = Readable()
        self._began = lease.began_at

    def run(self, *, going_on: bool) -> Done:
        """Pull. `going_on`: right after another batch, so that only one folder in turn is looked at for what arrived.

        A server that asks for less after it has given some is no failure: what came is stored, and the rest comes later.
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
            self._readable = Readable(unreadable_folders.errors(conn, self._mailbox.id))
        folders = self._folders()
        done = self._round(folders, going_on=going_on)
        if self._readable.news(folders):
            with self._fenced() as conn:
                self._readable.note(conn, self._mailbox, folders, datetime.now(UTC))
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
        # Nothing waits for the next poll because its folder was not the one in turn.
        for folder in () if self._more else ordered[looked_at:]:
            if self._budget.spent:
                return self._done(more=self._mails > 0)  # there are too many folders for one look; others come first next time
            begun = (folder, "new") in self._positions
            self._more |= self._try(folder, "new") or (not begun and self._unfinished(folder))
        return self._done(more=self._more)

    def _done(self, *, more: bool) -> Done:
        return Done(self._mails, more, self._readable.trouble)

    def _try(self, folder: str, lane: Lane) -> bool:
        """A pull; whether there is more in that lane. A folder that cannot be read is in nobody's way."""
        try:
            more = self._pull(folder, lane)
        except NoFolder as error:
            self._readable.failed[folder] = str(error)
            return False
        self._readable.read.add(folder)
        return more

    def _folders(self) -> list[str]:
        folders = list(self._mailbox.folders)
        return list(self._session.folders()) if EVERY_FOLDER in folders else folders

    def _unfinished(self, folder: str) -> bool:
        position = self._positions.get((folder, "backfill"))
        return position is not None and position.finished_at is None

    def _pull(self, folder: str, lane: Lane) -> bool:
        """One pull, stored; whether there is more in that lane. A cursor that means nothing any more is replaced."""
        if (folder, lane) not in self._positions:
            self._begin(folder)
        position = self._positions[folder, lane]
        try:
            pulled = self._session.pull(folder, lane, position.cursor, self._budget.bounds(self._hold), self._known)
            self._budget.spend(pulled)
            self._store(position, pulled)
        except Gone as error:
            _log.info("mailbox_resynced", mailbox=self._mailbox.name, folder=folder, reason=str(error))
            mail_metrics.RESYNCS.labels(self._mailbox.kind).inc()
            self._begin(folder)
            return False  # what there is, is in the backfill now; and a server that changes its mind each time makes no loop
        finally:
            self._room.give(self._held)
            self._held = 0
        mail_metrics.observe_mails(self._mailbox.kind, lane, len(pulled.mails), pulled.missing)
        if pulled.missing:
            _log.warning("mails_not_given", mailbox=self._mailbox.name, folder=folder, lane=lane, mails=pulled.missing)
        return pulled.more

    def _hold(self, size: int) -> None:
        """Wait for room for so many bytes; until then nothing of them is fetched. Asked again, what was held is given back."""
        self._room.give(self._held)
        self._held = 0
        try:
            self._held = self._room.take(size, self._budget.until - MAX_SECONDS / 3)
        except TimeoutError as error:
            raise Untaken(str(error)) from None

    def _begin(self, folder: str) -> None:
        """Where both lanes of a folder begin, from now on."""
        # A folder that appears on the server once the mailbox is read holds what arrived since then as well.
        appeared = EVERY_FOLDER in self._mailbox.folders and self._lease.began_at is not None
        again = appeared or (folder, "new") in self._positions or self._known.older(folder, ANY)
        begun = self._session.begin(folder)
        now = datetime.now(UTC)
        finished = None if begun.backfill else now
        backfill = Position(folder, "backfill", begun.backfill or {}, 0, begun.total, finished, again)
        positions = (Position(folder, "new", begun.new), backfill)
        with self._fenced() as conn:
            self._began = mail_leases.begin(conn, self._lease, now)
            for position in positions:
                mail_items.put_position(conn, self._mailbox.id, position, now, finished=position.finished_at is not None)
        for position in positions:
            self._positions[folder, position.lane] = position

    def _reconcile(self, folders: Sequence[str]) -> None:
        """Once a day, when all is filled back, begin to compare what is there with what is held: that is a backfill as well."""
        now = datetime.now(UTC)
        last = self._lease.reconciled_at or self._began
        readable = list(filter(self._readable.may, folders))
        if last is None or now - last < RECONCILE or any(map(self._unfinished, readable)):
            return
        fresh = []
        for folder in readable:
            try:
                begun = self._session.begin(folder)
            except NoFolder:
                continue
            if begun.backfill is not None:
                fresh.append(Position(folder, "backfill", begun.backfill, 0, begun.total, again=True))
        with self._fenced() as conn:
            mail_leases.reconciled(conn, self._lease, now)
            for position in fresh:
                mail_items.put_position(conn, self._mailbox.id, position, now)
        for position in fresh:
            self._positions[position.folder, "backfill"] = position

    def _store(self, position: Position, pulled: Pulled) -> None:
        mails = pulled.mails
        if position.lane == "backfill":
            # What the server took since the mailbox was first read was only missed, and is no less new for that.
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
        """A transaction that is ours alone to make. Raises `Fenced`, and then nothing was written."""
        with transaction(self._engine) as conn:
            if not mail_leases.still_mine(conn, self._lease, datetime.now(UTC) + LEASE):
                raise Fenced
            yield conn
