"""The sealer: signs every tenant's log that grew, publishes it, and has it anchored. It writes no entry and no position.

Any number may run, and one of them seals: it holds an advisory lock on a connection kept for it. What it needs to know of the
past it reads outside the database; `workers.sealer.sealing` says what is repeated when it dies.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

import structlog

from ops.errors import OpsError, PlaceAway, one_line
from ops.runtime.db import Engine, transaction
from ops.runtime.places import Patience, Place
from ops.runtime.published_log import PublishedLog
from ops.runtime.vault import Vault
from ops.settings import Settings
from ops.telemetry import log_metrics
from pipeline.errors import Unreadable
from pipeline.ledger.judge import Refused
from pipeline.store.log import checkpoints
from pipeline.store.log.checkpoints import OpenLog
from workers.process import Process
from workers.rounds import Rounds
from workers.sealer.board import Board, Published
from workers.sealer.lane import Lane
from workers.sealer.lead import Deposed, Lead
from workers.sealer.open_anchors import open_anchors
from workers.sealer.sealing import NoKey, Sealing

RETRY: Final = 60.0  # seconds until a refused log is judged again, unless it grew
AGAIN: Final = 60.0  # seconds between two looks whether what was published of a log at rest is still there
FAR: Final = 20_000  # unsealed leaves from which on a log is sealed beside the others, about a second's work

_log = structlog.get_logger()


@dataclass(slots=True)
class _Sealed:
    """What is published of a log, by which keys, and when that was last looked at (monotonic)."""

    size: int
    keys: tuple[int, ...]
    seen: float


class Sealer:
    """Seals every log that changed since it was last sealed. One thread calls `turn`."""

    def __init__(self, engine: Engine, sealing: Sealing, board: Board, *, lead: Lead | None = None, far: int = FAR) -> None:
        """A log with more than `far` unsealed leaves is sealed in a thread of its own."""
        self._engine = engine
        self._sealing = sealing
        self._board = board
        self._lead = lead or Lead(engine)
        self._far = far
        self._lane = Lane()
        self._sealed: dict[int, _Sealed] = {}
        self._behind: dict[int, float] = {}  # log -> since when it has had unsealed leaves (monotonic)
        self._refused: dict[int, tuple[int, float]] = {}  # log -> its size then, and when (monotonic)
        self._cosigned: dict[int, tuple[str, ...]] = {}  # log -> the cosignatures that were published last
        self._hindered: set[int] = set()  # logs whose last sealing failed; they come last
        self.beat: Callable[[], None] = lambda: None
        self.trouble: str | None = None

    def turn(self) -> None:
        """Seal what is to be sealed. Raises database errors, after which it begins anew."""
        if not self._lead.take():
            self._forget()
            return
        try:
            self._round(self._lead.fence())
        except Deposed as error:
            _log.warning("deposed", error=str(error))
            self._lead.release()
            self._forget()

    def close(self) -> None:
        """Let another process seal."""
        self._lane.leave()
        self._lead.release()

    def _round(self, fence: Callable[[], None]) -> None:
        with transaction(self._engine) as conn:
            logs = checkpoints.open_logs(conn)
        now = time.monotonic()
        self._note_behind(logs, now)
        patience = Patience()
        troubles = [*self._take_back(fence)]
        for log in sorted(logs, key=lambda log: (log.id in self._hindered, log.unsealed)):
            self.beat()
            if not self._is_due(log, now, patience):
                continue
            if log.unsealed > self._far:
                self._send(log, fence)
            else:
                troubles.append(self._seal(log, partial(self._in_time, log, fence, patience), fence))
        for published in self._board.published():
            self.beat()
            self._cosign(published, fence, patience)
        self.trouble = next((each for each in troubles if each is not None), None)
        log_metrics.standing(len(self._refused), max((now - since for since in self._behind.values()), default=0.0))

    def _in_time(self, log: OpenLog, fence: Callable[[], None], patience: Patience) -> bool:
        with patience.asking():
            return self._sealing.seal(log, fence, self.beat)

    def _send(self, log: OpenLog, fence: Callable[[], None]) -> None:
        """Have a log that is far behind sealed beside the others, unless another one is."""
        if self._lane.log is None:
            self._lane.start(log, partial(self._sealing.seal, log, fence))

    def _take_back(self, fence: Callable[[], None]) -> Iterator[str | None]:
        """What hinders the log that was sealed beside the others, when that has ended."""
        if (done := self._lane.take()) is not None:
            fence()
            yield self._seal(*done, fence)

    def _forget(self) -> None:
        """Another process seals: what is published may change without this one."""
        self._lane.leave()
        self._hindered.clear()
        for known in (self._sealed, self._behind, self._refused, self._cosigned):
            known.clear()
        log_metrics.standing(0, 0.0)

    def _note_behind(self, logs: list[OpenLog], now: float) -> None:
        behind = {log.id for log in logs if log.id not in self._sealed or self._sealed[log.id].size != log.size}
        self._behind = {each: self._behind.get(each, now) for each in behind}
        for gone in self._refused.keys() - {log.id for log in logs}:  # a closed log is not refused any more
            del self._refused[gone]

    def _is_due(self, log: OpenLog, now: float, patience: Patience) -> bool:
        if self._lane.log is not None and self._lane.log.id == log.id:
            return False
        alarmed = self._board.take_alarm(log.id)
        if log.id in self._refused:
            size, at = self._refused[log.id]
            return alarmed or size != log.size or now - at >= RETRY
        sealed = self._sealed.get(log.id)
        if alarmed or sealed is None or (sealed.size, sealed.keys) != (log.size, log.keys):
            return True
        return now - sealed.seen >= AGAIN and not self._stands(log, sealed, patience)

    def _stands(self, log: OpenLog, sealed: _Sealed, patience: Patience) -> bool:
        """Whether a log at rest is still published as it was: a process that stood still may have written an old checkpoint."""
        published = self._board.newest(log.id)
        if published is None:
            return False
        try:
            with patience.asking():
                stands = self._sealing.stands(published)
        except PlaceAway:
            return False  # to seal it tells of that
        sealed.seen = time.monotonic()
        return stands

    def _seal(self, log: OpenLog, seal: Callable[[], bool], fence: Callable[[], None]) -> str | None:
        """Seal one log; give what hinders it. Raises database errors and `Deposed` only: the other logs are to be sealed."""
        began = time.monotonic()
        try:
            grew = seal()
        except Refused as refused:
            fence()  # what it found may be another sealer's, which has led since this process stood still
            self._refuse(log, refused)
            return None
        except (PlaceAway, NoKey, Unreadable, OpsError) as error:
            self._hindered.add(log.id)
            _log.warning("not_sealed", tenant=log.tenant, error=one_line(error))
            return one_line(error)
        self._hindered.discard(log.id)
        self._cosigned.pop(log.id, None)
        self._sealed[log.id] = _Sealed(log.size, log.keys, time.monotonic())
        self._behind.pop(log.id, None)
        self._refused.pop(log.id, None)
        with transaction(self._engine) as conn:
            resumed = checkpoints.resume(conn, log.id)
        if resumed:
            _log.info("log_sealed_again", tenant=log.tenant, incarnation=log.incarnation, size=log.size)
        if grew:
            log_metrics.sealed(time.monotonic() - began)
            _log.debug("sealed", tenant=log.tenant, incarnation=log.incarnation, size=log.size)
        return None

    def _refuse(self, log: OpenLog, refused: Refused) -> None:
        """Alarm, and go on: the entries are recorded all the same, and nothing more is claimed of them."""
        self._board.withdraw(log.id)
        self._sealed.pop(log.id, None)
        anew = log.id not in self._refused and self._board.disputed(log.id)  # that event was not of a refusal
        self._refused[log.id] = (log.size, time.monotonic())
        detail = f"{refused}; nothing more of this log is signed. After a restore: `waxseal log new-origin {log.tenant}`"
        _log.error("log_refused", tenant=log.tenant, incarnation=log.incarnation, kind=refused.kind, detail=str(refused))
        with transaction(self._engine) as conn:
            checkpoints.refuse(conn, log, refused.kind, detail, datetime.now(UTC), anew=anew)

    def _cosign(self, published: Published, fence: Callable[[], None], patience: Patience) -> None:
        """Publish what witnesses have signed since the last time, and only then look at the place."""
        lines = tuple(self._board.cosignatures(published.log.id, published.checkpoint.size))
        if not lines or self._cosigned.get(published.log.id) == lines:
            return
        try:
            with patience.asking():
                self._sealing.cosign(published, fence)
            self._cosigned[published.log.id] = lines
        except PlaceAway as error:
            _log.warning("cosignatures_not_published", error=str(error))


def run(settings: Settings) -> int:
    """Run the sealer until SIGTERM or SIGINT. Returns the exit status."""

    def heart() -> None:
        sealer.beat()

    with Process(settings, "sealer", "database_url", "keys", "log_files", "log_origin") as process:
        engine, board = process.engine(3), Board()
        files = partial(_files, Place(settings.log_files))  # the anchors' calls are not the main loop's heart
        anchorings = process.closing(open_anchors(settings.log_anchors, engine, board, files))
        place = Place(settings.log_files, beat=heart)
        vault = Vault(settings.fernet_keys())
        sealing = Sealing(engine, place, settings.log_origin, vault, board, anchorings.first_look)
        sealer = Sealer(engine, sealing, board, lead=Lead(process.engine(1, session=True)))
        rounds = Rounds(process.stop, partial(_round, sealer, settings.log_every), sealer.close)
        checks = {"database": process.database(lambda: rounds.trouble), "log_files": lambda: sealer.trouble}
        sealer.beat = process.serve(checks)
        process.closing(sealer)
        rounds.run(sealer.beat)
    return process.status


def _round(sealer: Sealer, every: float) -> float:
    began = time.monotonic()
    sealer.turn()
    return began + every - time.monotonic()


def _files(place: Place, log: OpenLog) -> PublishedLog:
    return PublishedLog(place, log.tenant, log.incarnation)
