"""Writes batches of messages into the ledger: rooms 2 to 6, one transaction a batch."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential_jitter

from ops import metrics
from ops.blobs import Blobs
from ops.db import UNIQUE_VIOLATION, Connection, Engine, passes, sqlstate, transaction
from ops.errors import OpsError
from ops.secrets import Vault
from pipeline.admit import admit
from pipeline.append import append
from pipeline.bury import letter_of
from pipeline.errors import BlobsAway, Rejected
from pipeline.fanout import Subscriptions, subscriptions
from pipeline.store import catalog, graves
from schemas.blob import LARGEST_INLINE
from schemas.catalog import EMPTY, Catalog
from schemas.deadletter import DeadLetter
from schemas.event import Event
from schemas.message import Message
from workers.bodies import exchanged
from workers.notices import Notices

log = structlog.get_logger()

FRESH = 0.5  # seconds for which the catalog may be used without asking whether it changed
RACES = 5  # times that another writer may have recorded the same event in between, before the batch is held to be at fault


class Stopped(Exception):
    """The process is to end: what was not committed goes back to the broker."""


class Unfetched(Exception):
    """A message that was refused is admitted now, because the catalog has moved; its body must be fetched first."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A message in hand, and its events once it was admitted; None where that is left to the transaction."""

    message: Message
    arrived: float  # monotonic seconds
    size: int  # bytes of the body, wherever it is
    events: Sequence[Event] | None = None
    refused: Rejected | None = None  # for its body, which is not in the blob store


class Writer:
    """The one who appends. `judge` may be called from another thread than `write`."""

    def __init__(self, engine: Engine, vault: Vault, blobs: Blobs, stopping: Callable[[], bool]) -> None:
        self._engine = engine
        self._vault = vault
        self._blobs = blobs
        self._stopping = stopping
        self._catalog: Catalog = EMPTY
        self._subscribed: Subscriptions = {}
        self._checked = float("-inf")
        self._notices = Notices(engine)
        self.trouble: str | None = None  # why nothing can be written just now

    def judge(self, message: Message) -> Judged:
        """Admits `message` while the database is busy with the batch before it.

        Leaves it to the transaction when the catalog may have changed, or has no place for it: then it is asked again.
        """
        arrived = time.monotonic()
        if arrived - self._checked < FRESH:
            try:
                return Judged(message, arrived, message.size, admit(message, self._catalog, datetime.now(UTC)))
            except Exception:  # noqa: BLE001, S110 - whatever it is, in the transaction it is buried with its reason
                pass
        return Judged(message, arrived, message.size)

    def write(self, batch: Sequence[Judged]) -> None:
        """Returns when every message of `batch` is in the ledger, known to be there already, or a dead letter: durably.

        Waits for a database that is away. A batch that fails twice through no fault of the database is halved until the
        culprit is alone and buried. Raises `Stopped` when the process is to end first, `OpsError` when it cannot go on.
        """
        fault = self._fault_of(batch)
        if fault is None:
            return
        if len(batch) == 1:
            self._until_done(lambda: self._bury(batch[0], fault))
            return
        log.warning("batch_halved", messages=len(batch), error=_one_line(fault))
        middle = len(batch) // 2
        self.write(batch[:middle])
        self.write(batch[middle:])

    def _fault_of(self, batch: Sequence[Judged]) -> Exception | None:
        """Commits `batch`; gives back what is wrong with it, when that is neither the database's fault nor ours."""
        try:
            self._until_done(lambda: self._commit(batch))
        except (Stopped, OpsError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not stop the messages beside it
            return error
        return None

    def _until_done(self, work: Callable[[], None]) -> None:
        failures = Failures()
        for attempt in Retrying(
            retry=retry_if_exception(failures.may_pass),
            wait=wait_exponential_jitter(multiplier=0.05, max=3.0, jitter=0.5),
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
        self.trouble = f"the batch was not written: {_one_line(error)}"
        log.warning("batch_retried", tries=state.attempt_number, error=_one_line(error))

    def _commit(self, batch: Sequence[Judged]) -> None:
        began = time.monotonic()
        if any(judged.size > LARGEST_INLINE for judged in batch):
            batch = self._exchanged(batch)
        with transaction(self._engine) as conn:
            self._refresh(conn)
            now = datetime.now(UTC)
            admitted, letters = self._admitted(batch, now)
            events = [event for judged in admitted for event in judged]
            appending = time.monotonic()
            appended = append(conn, events, self._subscribed, now)
            append_seconds = time.monotonic() - appending
            graves.bury(conn, letters, now)
        done = time.monotonic()
        new = Counter(self._kind(entry.event.tenant, entry.event.attributes["source"]) for entry in appended.entries)
        all_of = Counter(self._kind(event.tenant, event.attributes["source"]) for event in events)
        metrics.observe_batch(new, all_of - new, seconds=done - began, append=append_seconds)
        for letter in letters:
            _report(letter, self._kind(letter.tenant or "", letter.source or ""))
        self._notices.conflicts(appended.conflicts, self._catalog)
        log.debug(
            "batch_appended",
            messages=len(batch),
            entries=len(appended.entries),
            duplicates=appended.duplicates,
            deliveries=appended.planned,
            seconds=round(done - began, 4),
        )

    def _exchanged(self, batch: Sequence[Judged]) -> Sequence[Judged]:
        """The batch with the claim check done for what is large in it: outside the transaction, which locks heads."""
        if any(judged.events is None for judged in batch):
            with transaction(self._engine) as conn:
                self._refresh(conn)
        return [judged if judged.size <= LARGEST_INLINE else self._with_bodies(judged) for judged in batch]

    def _with_bodies(self, judged: Judged) -> Judged:
        events = judged.events
        if events is None:
            try:
                events = admit(judged.message, self._catalog, datetime.now(UTC))
            except Rejected:  # so it will be in the transaction
                return judged
        try:
            return replace(judged, events=exchanged(self._blobs, judged.message, events))
        except Rejected as refused:
            return replace(judged, refused=refused)

    def _refresh(self, conn: Connection) -> None:
        if catalog.version(conn) != self._catalog.version:
            self._catalog = catalog.load(conn, self._vault.decrypt)
            self._subscribed = subscriptions(self._catalog)
        self._checked = time.monotonic()

    def _admitted(self, batch: Sequence[Judged], now: datetime) -> tuple[list[Sequence[Event]], list[DeadLetter]]:
        admitted, letters = [], []
        for judged in batch:
            try:
                if judged.refused is not None:
                    raise judged.refused
                admitted.append(judged.events if judged.events is not None else self._admit(judged, now))
            except Rejected as rejected:
                letters.append(letter_of(judged.message, "admit", rejected.reason, rejected.detail))
        return admitted, letters

    def _admit(self, judged: Judged, now: datetime) -> Sequence[Event]:
        events = admit(judged.message, self._catalog, now)
        if judged.message.blob is not None:
            raise Unfetched(f"{judged.message.blob.reference} was not fetched")
        return events

    def _bury(self, judged: Judged, error: Exception) -> None:
        letter = letter_of(judged.message, "append", "poison", _one_line(error), sqlstate(error) or type(error).__name__)
        with transaction(self._engine) as conn:
            graves.bury(conn, [letter], datetime.now(UTC))
        _report(letter, self._kind(letter.tenant or "", letter.source or ""))

    def _kind(self, tenant: str, source: str) -> str:
        known = self._catalog.sources.get((tenant, source))
        return known.kind if known else "unknown"


class Failures:
    """Counts what went wrong with one batch, and says whether to try it again as it is."""

    def __init__(self) -> None:
        self.seen = 0
        self._races = 0
        self._faults = 0

    def may_pass(self, error: BaseException) -> bool:
        """Whether to try again: always when the database is at fault, a few times for a race, once for anything else."""
        if isinstance(error, Stopped | OpsError) or not isinstance(error, Exception):
            return False
        self.seen += 1
        if sqlstate(error) == UNIQUE_VIOLATION:
            self._races += 1
            return self._races < RACES
        if passes(error) or isinstance(error, BlobsAway):
            return True
        self._faults += 1
        return self._faults < 2


def _report(letter: DeadLetter, kind: str) -> None:
    metrics.observe_buried(letter.stage, letter.reason)
    metrics.observe_rejected(kind, letter.reason)
    log.warning("message_buried", stage=letter.stage, reason=letter.reason, detail=letter.detail, source=letter.source)


def _one_line(error: BaseException | None) -> str:
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
