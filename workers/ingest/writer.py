"""Writes batches of messages into the ledger: steps 2 to 6 of the route, one transaction a batch."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception

from ops.errors import OpsError, one_line
from ops.runtime.blobs import Blobs
from ops.runtime.db import Connection, Engine, damaged, passes, transaction
from ops.runtime.driver.db_distance import round_trip
from ops.runtime.vault import Vault
from pipeline.admit import admit
from pipeline.append import append, open_batch
from pipeline.errors import Rejected
from pipeline.fanout import Subscriptions, subscriptions
from pipeline.store.config import catalog
from pipeline.store.dead_letters import dead_letters
from pipeline.store.ledger import entries as ledger_entries
from schemas.blob import LARGEST_INLINE
from schemas.catalog import EMPTY, Catalog
from schemas.dead_letter import DeadLetter
from schemas.event import Event
from schemas.message import Message
from workers.ingest.batch_report import Report
from workers.ingest.chains_aside import ChainsAside
from workers.ingest.claim_check import exchanged
from workers.ingest.examiner import Examiner
from workers.ingest.failures import DatabaseDamaged, Failures, Stopped, fatal, for_every_message, pause
from workers.ingest.judged import Judged, broken, rejected
from workers.ingest.keeper import Keep, nowhere
from workers.ingest.operator_notices import Notices
from workers.ingest.watchdog import TooSlow, Watch
from workers.ingest.write_probe import can_append

log = structlog.get_logger()

MOST_KNOWN = 100_000  # chains that are remembered to exist; others are looked up first

# Filters that are tested in one transaction, one for each message and endpoint of its tenant. That takes half a second of CPU:
# Postgres ends a transaction that is idle for ten seconds, and a batch that needs longer would never be written.
MATCHES: Final = 500_000

__all__ = ["Judged", "Stopped", "Writer"]


class _Outdated(Exception):
    """Tenants or sources have changed since a message of the batch was judged."""


class Writer:
    """Judges and appends messages. `judge` may be called from another thread than `write`."""

    def __init__(
        self,
        engine: Engine,
        vault: Vault,
        blobs: Blobs,
        stopping: Callable[[], bool],
        watch: Watch | None = None,
        keep: Keep | None = nowhere,
    ) -> None:
        """`keep` puts aside what came for a tenant that moves to another cell; None: that is recorded as well."""
        self._engine = engine
        self._vault = vault
        self._blobs = blobs
        self._stopping = stopping
        self._watch = watch or Watch()
        self._keep = keep
        self._rules: tuple[Catalog, int] = (EMPTY, 0)  # the catalog for judging, and its epoch; replaced as a whole
        self._subscribed: Subscriptions = {}
        self._most = MATCHES  # of messages in one transaction
        self._known_chains: set[bytes] = set()  # keys of chains that are known to exist
        self._notices = Notices(engine)
        self._aside = ChainsAside(self._notices)
        self._examiner = Examiner()
        self.trouble: str | None = None  # why nothing can be written at the moment

    def load(self) -> None:
        """Read the catalog for judging the first messages; if Postgres is away they are examined in the separate process."""
        try:
            with transaction(self._engine) as conn:
                self._refresh(conn, catalog.version(conn))
                self._aside.load(conn)
        except Exception as error:
            if not passes(error):
                raise

    def judge(self, message: Message, *, suspect: bool = False) -> Judged:
        """Admit `message` while the database is busy with the batch before it.

        The result is open if `message` is `suspect` (was delivered before and not acked), exceeds the time limit, or fails
        for an unknown reason: `write` then examines it in the separate process.
        """
        rules, epoch = self._rules
        if not suspect:
            try:
                return Judged(message, message.size, epoch, self._watch.run(admit, message, rules, datetime.now(UTC)))
            except Rejected as error:
                return Judged(message, message.size, epoch, refusal=rejected(error))
            except (Exception, TooSlow) as error:  # noqa: BLE001 - the cause is found in the separate process
                log.warning("message_suspected", tenant=message.tenant, source=message.source, error=type(error).__name__)
        return Judged(message, message.size)

    def write(self, batch: Sequence[Judged]) -> None:
        """Return when every message of `batch` is durably in the ledger, recognised as a duplicate, or a dead letter.

        Waits while Postgres is away. Messages on a broken chain become dead letters; a batch that fails twice through no fault
        of the database is halved until the faulty message is isolated and buried. Raises `Stopped` when the process must end
        before that, and `OpsError` when it cannot go on.
        """
        for first in range(0, len(batch), self._most):
            self._write(list(batch[first : first + self._most]))

    def _write(self, batch: list[Judged]) -> None:
        fault = self._fault_of(batch)
        if fault is None:
            return
        if len(batch) == 1:
            self._until_done(lambda: self._bury(batch[0], fault))
            return
        log.warning("batch_halved", messages=len(batch), error=one_line(fault))
        middle = len(batch) // 2
        self._write(batch[:middle])
        self._write(batch[middle:])

    def close(self) -> None:
        """End the process that examines messages."""
        self._examiner.close()

    def _fault_of(self, batch: list[Judged]) -> Exception | None:
        """Commit `batch`; give the error if the batch caused it, rather than the database or this process."""
        try:
            self._until_done(lambda: self._record(batch), alone=len(batch) == 1)
        except (Stopped, OpsError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not stop the messages beside it
            return error
        return None

    def _until_done(self, work: Callable[[], None], *, alone: bool = True) -> None:
        failures = Failures(alone=alone)
        for attempt in Retrying(
            retry=retry_if_exception(failures.may_pass),
            wait=pause,
            before_sleep=self._in_trouble,
            reraise=True,
        ):
            with attempt:
                if failures.seen and self._stopping():
                    raise Stopped
                work()
        self.trouble = None

    def _in_trouble(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self.trouble = f"the batch was not written: {one_line(error)}"
        log.warning("batch_retried", tries=state.attempt_number, error=one_line(error))

    def _record(self, batch: list[Judged]) -> None:
        """Commit `batch`; its open messages are examined first, in place."""
        while True:
            self._examine(batch)
            self._keep_leaving(batch)
            if not batch:
                return
            ready = self._exchanged(batch)
            try:
                self._commit(ready)
            except _Outdated:
                continue
            except Exception as error:
                if self._aside.blames(error) and self._aside.find(self._engine, _events(ready), error):
                    continue
                if damaged(error) and len(ready) == 1 and not self._others_can_be_recorded(ready[0].events):
                    raise DatabaseDamaged(one_line(error)) from error
                raise
            return

    def _others_can_be_recorded(self, events: Sequence[Event] | None) -> bool:
        """Whether `events` could be recorded under other identities: then only their own rows are damaged."""
        return bool(events) and can_append(self._engine, events or (), self._subscribed, self._vault.decrypt)

    def _examine(self, batch: list[Judged]) -> None:
        """Judge open or outdated messages, one after the other, in the separate process."""
        rules, epoch = self._rules
        if all(judged.epoch == epoch and not judged.is_open for judged in batch):
            self._examiner.rest()
            return
        with for_every_message(), transaction(self._engine) as conn:
            self._refresh(conn, catalog.version(conn))
        rules, epoch = self._rules
        for number, judged in enumerate(batch):
            if judged.epoch != epoch or judged.is_open:
                if self._stopping():
                    raise Stopped
                batch[number] = self._examiner.examine(judged.message, rules, epoch)

    def _keep_leaving(self, batch: list[Judged]) -> None:
        """Put aside, and take out of `batch`, what is for tenants that leave for another cell, or have left."""
        if not (leaving := self._leaving(batch)):
            return
        with transaction(self._engine) as conn:
            still = catalog.lock_kept(conn, {judged.message.tenant for judged in leaving})
            (self._keep or nowhere)([judged for judged in leaving if judged.message.tenant in still])
            self._refresh(conn, catalog.version(conn))
        batch[:] = [judged for judged in batch if judged.message.tenant not in still]

    def _leaving(self, batch: Sequence[Judged]) -> list[Judged]:
        moving = self._rules[0].moving if self._keep is not None else ()
        return [judged for judged in batch if judged.message.tenant in moving] if moving else []

    def _commit(self, batch: Sequence[Judged]) -> None:
        began = time.monotonic()
        batch = self._readable(batch)
        made, self._known_chains = self._known_chains, set()  # forget all if this fails: a remembered chain may no longer exist
        with transaction(self._engine) as conn:
            now = datetime.now(UTC)
            if self._aside.damage_met:
                ledger_entries.read_by_index(conn)
            opening = time.monotonic()
            opened = open_batch(conn, _events(batch), made)
            lock_wait = time.monotonic() - opening if opened.heads else None
            self._refresh(conn, opened.version)
            if any(judged.epoch != self._rules[1] for judged in batch) or self._leaving(batch):
                raise _Outdated
            admitted, refused = self._sorted(conn, batch)
            appending = time.monotonic()
            fresh = [event for _, events in admitted for event in events]
            appended = append(conn, fresh, self._subscribed, now, opened, round_trip=round_trip())
            append_seconds = time.monotonic() - appending
            dead_letters.bury(conn, refused, now)
        made.update(entry.event.chain_key for entry in appended.entries)
        self._known_chains = made if len(made) <= MOST_KNOWN else set()
        report = Report(self._rules[0], time.monotonic() - began, append_seconds, lock_wait)
        report.batch(admitted, appended)
        report.buried(refused)
        self._notices.conflicts(appended.conflicts, self._rules[0])
        self._aside.note_mended()

    def _readable(self, batch: Sequence[Judged]) -> Sequence[Judged]:
        """The batch, with a refusal for each message on a chain that Postgres cannot read."""
        if not (unreadable := self._aside.unreadable(self._engine, [judged.events or () for judged in batch])):
            return batch
        held = {number: replace(batch[number], events=None, refusal=broken(chain)) for number, chain in unreadable.items()}
        return [held.get(number, judged) for number, judged in enumerate(batch)]

    def _exchanged(self, batch: Sequence[Judged]) -> Sequence[Judged]:
        """Do the claim check for the large bodies of the batch, outside the transaction, which locks chain heads."""
        if all(judged.size <= LARGEST_INLINE for judged in batch):
            return batch
        return [judged if judged.size <= LARGEST_INLINE else self._with_bodies(judged) for judged in batch]

    def _with_bodies(self, judged: Judged) -> Judged:
        if judged.events is None:
            return judged
        try:
            events = exchanged(self._blobs, judged.message, judged.events)
        except Rejected as error:
            return Judged(judged.message, judged.size, judged.epoch, refusal=rejected(error))
        return Judged(judged.message, judged.size, judged.epoch, events)

    def _refresh(self, conn: Connection, version: int) -> None:
        before, epoch = self._rules
        if version == before.version:
            return
        after = catalog.load(conn, self._vault.decrypt)
        self._subscribed = subscriptions(after)
        self._most = max(1, MATCHES // max(1, max(map(len, self._subscribed.values()), default=1)))
        self._rules = (after, epoch if _judges_alike(before, after) else epoch + 1)

    def _sorted(
        self, conn: Connection, batch: Sequence[Judged]
    ) -> tuple[list[tuple[Message, Sequence[Event]]], list[DeadLetter]]:
        """The messages to append, with their events, and the dead letters."""
        refused = [judged.refusal.dead_letter(judged.message) for judged in batch if judged.refusal is not None]
        admitted = [(judged.message, judged.events or ()) for judged in batch if judged.refusal is None]
        if held := self._aside.held_up(conn, [events for _, events in admitted]):
            refused += [broken(chain).dead_letter(admitted[number][0]) for number, chain in held.items()]
            admitted = [each for number, each in enumerate(admitted) if number not in held]
        return admitted, refused

    def _bury(self, judged: Judged, error: Exception) -> None:
        refused = fatal(error).dead_letter(judged.message)
        with for_every_message(), transaction(self._engine) as conn:
            dead_letters.bury(conn, [refused], datetime.now(UTC))
        Report(self._rules[0]).buried([refused])


def _judges_alike(before: Catalog, after: Catalog) -> bool:
    """Whether both admit any message alike; endpoints, which change more often, do not matter for that."""
    return (before.tenants, before.sources, before.before_origins) == (after.tenants, after.sources, after.before_origins)


def _events(batch: Sequence[Judged]) -> list[Event]:
    return [event for judged in batch for event in judged.events or ()]
