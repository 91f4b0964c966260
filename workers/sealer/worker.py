"""The sealer: signs every tenant's log that grew, publishes it, and has it anchored. It writes no entry and no position.

Any number may run, and one of them seals: it holds an advisory lock on a connection kept for it. What it needs to know of the
past it reads outside the database; `workers.sealer.sealing` says what is repeated when it dies.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

import structlog

from ops.errors import OpsError, PlaceAway, one_line
from ops.runtime.db import Connection, Engine, transaction
from ops.runtime.places import Place
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
from workers.sealer.board import Board
from workers.sealer.open_anchors import open_anchors
from workers.sealer.sealing import NoKey, Sealing

RETRY: Final = 60.0  # seconds until a refused log is judged again, unless it grew

_log = structlog.get_logger()


class Sealer:
    """Seals every log that changed since it was last sealed. One thread calls `turn`."""

    def __init__(self, engine: Engine, sealing: Sealing, board: Board) -> None:
        self._engine = engine
        self._sealing = sealing
        self._board = board
        self._conn: Connection | None = None
        self._sealed: dict[int, int] = {}  # log -> the size that is published
        self._behind: dict[int, float] = {}  # log -> since when it has had unsealed leaves (monotonic)
        self._refused: dict[int, tuple[int, float]] = {}  # log -> its size then, and when (monotonic)
        self.trouble: str | None = None

    def turn(self) -> None:
        """Seal what is to be sealed. Raises database errors, after which it begins anew."""
        if not self._leads():
            self._forget()
            return
        with transaction(self._engine) as conn:
            logs = checkpoints.open_logs(conn)
        now = time.monotonic()
        self._note_behind(logs, now)
        trouble = None
        for log in logs:
            if self._is_due(log, now):
                trouble = self._seal(log) or trouble
        self.trouble = trouble
        for published in self._board.published():
            self._cosign(partial(self._sealing.cosign, published))
        log_metrics.standing(len(self._refused), max((now - since for since in self._behind.values()), default=0.0))

    def close(self) -> None:
        """Let another process seal."""
        if self._conn is not None:
            conn, self._conn = self._conn, None
            conn.invalidate()  # a session that holds a lock must not go back to the pool
            conn.close()

    def _leads(self) -> bool:
        if self._conn is None:
            self._conn = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        return checkpoints.lead(self._conn)

    def _forget(self) -> None:
        """Another process seals: what is published may change without this one."""
        for known in (self._sealed, self._behind, self._refused):
            known.clear()
        log_metrics.standing(0, 0.0)

    def _note_behind(self, logs: list[OpenLog], now: float) -> None:
        behind = {log.id for log in logs if self._sealed.get(log.id) != log.size}
        self._behind = {each: self._behind.get(each, now) for each in behind}
        for gone in self._refused.keys() - {log.id for log in logs}:  # a closed log is not refused any more
            del self._refused[gone]

    def _is_due(self, log: OpenLog, now: float) -> bool:
        alarmed = self._board.take_alarm(log.id)
        if log.id in self._refused:
            size, at = self._refused[log.id]
            return alarmed or size != log.size or now - at >= RETRY
        return alarmed or self._sealed.get(log.id) != log.size

    def _seal(self, log: OpenLog) -> str | None:
        """Seal one log; give what hinders it. Only database errors are raised: the other logs are to be sealed."""
        began = time.monotonic()
        try:
            grew = self._sealing.seal(log)
        except Refused as refused:
            self._refuse(log, refused)
            return None
        except (PlaceAway, NoKey, Unreadable, OpsError) as error:
            _log.warning("not_sealed", tenant=log.tenant, error=one_line(error))
            return one_line(error)
        self._sealed[log.id] = log.size
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
        self._refused[log.id] = (log.size, time.monotonic())
        detail = f"{refused}; nothing more of this log is signed. After a restore: `waxseal log new-origin {log.tenant}`"
        _log.error("log_refused", tenant=log.tenant, incarnation=log.incarnation, kind=refused.kind, detail=str(refused))
        with transaction(self._engine) as conn:
            checkpoints.refuse(conn, log, refused.kind, detail, datetime.now(UTC))

    def _cosign(self, work: Callable[[], None]) -> None:
        try:
            work()
        except PlaceAway as error:
            _log.warning("cosignatures_not_published", error=str(error))


def run(settings: Settings) -> int:
    """Run the sealer until SIGTERM or SIGINT. Returns the exit status."""
    with Process(settings, "sealer", "database_url", "keys", "log_files", "log_origin") as process:
        engine = process.engine(3)
        place, board = Place(settings.log_files), Board()
        anchorings = process.closing(open_anchors(settings.log_anchors, engine, board, partial(_reader, place)))
        vault = Vault(settings.fernet_keys())
        sealing = Sealing(engine, place, settings.log_origin, vault, board, anchorings.first_look)
        sealer = Sealer(engine, sealing, board)
        rounds = Rounds(process.stop, partial(_round, sealer, settings.log_every), sealer.close)
        checks = {"database": process.database(lambda: rounds.trouble), "log_files": lambda: sealer.trouble}
        sealing.beat = process.serve(checks)
        process.closing(sealer)
        rounds.run(sealing.beat)
    return process.status


def _round(sealer: Sealer, every: float) -> float:
    began = time.monotonic()
    sealer.turn()
    return began + every - time.monotonic()


def _reader(place: Place, log: OpenLog) -> Callable[[str], bytes]:
    return PublishedLog(place, log.tenant, log.incarnation).read
