"""Anchors every log's newest published checkpoint at one place, in a thread of its own, as often as the place allows.

A place that fails never stops sealing: it is tried again, and what is not anchored there shows as missing. If the process dies
between the place's answer and the receipt's row, the same checkpoint is anchored again. Time stamps are published beside the
checkpoints; cosignatures are published by whoever seals.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog

from ops.errors import PlaceAway, one_line
from ops.runtime.background import Chore
from ops.runtime.db import Engine, transaction
from ops.runtime.published_log import PublishedLog
from ops.telemetry import log_metrics
from pipeline.errors import Unreadable
from pipeline.ledger.checkpoint import Checkpoint, unverified_checkpoint
from pipeline.store.log import anchors, checkpoints
from pipeline.store.log.checkpoints import OpenLog
from schemas.config.anchors import AnchorPlace
from schemas.ledger.log_names import stamp_name, stamped_name
from workers.sealer.anchor import Anchor, Contradicted, Disputed, Known, NotAnchored
from workers.sealer.board import Board, Published

TURN: Final = 1.0  # seconds between two looks at what is due
AGAIN: Final = (2.0, 300.0)  # seconds until a place that failed is tried again: first, and at most
FIRST_LOOK: Final = 5.0  # seconds that sealing waits for what the places have of a log, once in the life of the process
LATE: Final = 10.0  # seconds that it waits in vain for places that do not answer, over all logs; then it waits no more

_log = structlog.get_logger()

Files = Callable[[OpenLog], PublishedLog]


@dataclass(slots=True)
class _Done:
    size: int = 0
    at: float = float("-inf")  # monotonic


class Anchoring:
    """One place, and what it has of each log. `look` may be called by several threads, `turn` by one."""

    def __init__(self, setting: AnchorPlace, anchor: Anchor, engine: Engine, board: Board, files: Files) -> None:
        self.setting = setting
        self._anchor = anchor
        self._engine = engine
        self._board = board
        self._files = files
        self._looking = threading.Lock()
        self._looked: set[int] = set()
        self._done: dict[int, _Done] = {}
        self._failures = 0
        self._not_before = float("-inf")

    @property
    def away(self) -> bool:
        """Whether the last call failed, and the next one is not due yet."""
        return time.monotonic() < self._not_before

    def look(self, log: OpenLog, checkpoint: Checkpoint | None, note: str) -> None:
        """Put on the board what the place has of the log, once. Failures are counted and logged."""
        with self._looking:
            if log.id in self._looked or self.away:
                return
            try:
                with transaction(self._engine) as conn:
                    last = anchors.last(conn, log.id, self.setting.kind, self.setting.place)
                self._done[log.id] = _Done(last[0]) if last else _Done()
                if last:
                    self._show_again(log, last[0])
                seen = self._anchor.look(Known(log, checkpoint, note, self._done[log.id].size, self._files(log).read))
                self._looked.add(log.id)
                if seen is not None:
                    self._board.saw(log.id, seen, alarm=True)
                self._well()
            except (Contradicted, Disputed) as error:
                self._looked.add(log.id)
                self._against(log, error)
            except Exception as error:  # noqa: BLE001 - whatever it is, the other places and the sealing go on
                self._failed(log, error)

    def turn(self) -> None:
        """Anchor the logs that are due."""
        for published in self._board.published():
            if self.away:
                return
            log = published.log
            if log.id not in self._looked:
                self.look(log, published.checkpoint, published.note)
            done = self._done.get(log.id)
            if log.id not in self._looked or done is None or not self._is_due(published, done):
                continue
            try:
                self._take(published)
            except (Contradicted, Disputed) as error:
                self._against(log, error)
                done.at = time.monotonic() + max(0.0, AGAIN[1] - self.setting.every)
            except Exception as error:  # noqa: BLE001 - as above
                self._failed(log, error)

    def _against(self, log: OpenLog, error: Contradicted | Disputed) -> None:
        """The log is judged again by what the place has shown. What it only says alarms, and costs nothing but its own word."""
        log_metrics.anchored(self.setting.kind, None)
        if error.seen is not None:
            self._board.saw(log.id, error.seen, alarm=True)
        if isinstance(error, Contradicted):
            _log.error("anchor_contradicts", place=self.setting.place, tenant=log.tenant, size=error.seen.size)
            return
        _log.error("anchor_disputes", place=self.setting.place, tenant=log.tenant, error=one_line(error))
        if self._board.disputes(log.id, self.setting.place):
            detail = f"{error}. The log goes on; nothing of it is anchored there: runbook.md, WaxsealLogRefused"
            with transaction(self._engine) as conn:
                checkpoints.tell(conn, log.tenant, detail, datetime.now(UTC))

    def _is_due(self, published: Published, done: _Done) -> bool:
        return published.checkpoint.size > done.size and time.monotonic() - done.at >= self.setting.every

    def _take(self, published: Published) -> None:
        log, checkpoint, setting = published.log, published.checkpoint, self.setting
        done = self._done.get(log.id, _Done())
        known = Known(log, checkpoint, published.note, done.size, self._files(log).read, published.signed)
        receipt, lines = self._anchor.take(known)
        self._show(log, checkpoint.size, published.note, receipt)
        now = datetime.now(UTC)
        with transaction(self._engine) as conn:
            anchors.add(conn, log.id, checkpoint.size, setting.kind, setting.place, receipt, now)
        self._done[log.id] = _Done(checkpoint.size, time.monotonic())
        self._board.cosigned(log.id, checkpoint.size, lines)
        log_metrics.anchored(setting.kind, now.timestamp())
        self._well()
        _log.debug("anchored", place=setting.place, tenant=log.tenant, size=checkpoint.size)

    def _show(self, log: OpenLog, size: int, note: str, receipt: bytes) -> None:
        """Publish a time stamp with what was stamped, so that nobody needs the database to verify it."""
        if self.setting.kind == "rfc3161":
            stamped = {stamped_name(size): note.encode(), stamp_name(size, self.setting.place): receipt}
            self._files(log).write(stamped.items())

    def _show_again(self, log: OpenLog, size: int) -> None:
        """Publish the latest time stamp if it is not: what is at the published place may have been lost since."""
        if self.setting.kind != "rfc3161" or self._files(log).has(stamp_name(size, self.setting.place)):
            return
        with transaction(self._engine) as conn:
            note = checkpoints.kept(conn, log.id, size)
            given = [each for each in anchors.receipts(conn, log.id, size, "rfc3161") if each["place"] == self.setting.place]
        if note is not None and given:
            self._show(log, size, note, bytes(given[-1]["receipt"]))

    def _well(self) -> None:
        self._failures, self._not_before = 0, float("-inf")

    def _failed(self, log: OpenLog, error: Exception) -> None:
        self._failures += 1
        pause = min(AGAIN[0] * 2 ** min(self._failures - 1, 10), AGAIN[1], max(self.setting.every, AGAIN[0]))
        self._not_before = time.monotonic() + pause
        log_metrics.anchored(self.setting.kind, None)
        expected = isinstance(error, PlaceAway | NotAnchored)
        said = one_line(error) if expected else f"{type(error).__name__}: {one_line(error)}"
        _log.warning("not_anchored", place=self.setting.place, tenant=log.tenant, error=said, again_in=round(pause, 1))


class Anchorings:
    """All places, each with a thread, until `close`."""

    def __init__(self, places: Sequence[Anchoring]) -> None:
        self._places = places
        self._looked: set[int] = set()
        self._left = LATE
        self._pool = ThreadPoolExecutor(max(1, len(places)), thread_name_prefix="look")
        self._chores = [Chore(f"anchor-{number}", TURN, each.turn) for number, each in enumerate(places, 1)]

    def first_look(self, log: OpenLog, note: bytes | None) -> None:
        """Before a log is judged for the first time: see what the places have of it, for a few seconds at most.

        Those that do not answer in time put it on the board later, and the log is judged again.
        """
        if log.id in self._looked or not self._places:
            return
        self._looked.add(log.id)
        text, checkpoint = "", None
        try:
            text = (note or b"").decode()
            checkpoint = unverified_checkpoint(text) if note else None
        except (Unreadable, UnicodeDecodeError):
            return  # a checkpoint that nobody can read is refused
        asked = [self._pool.submit(each.look, log, checkpoint, text) for each in self._places if not each.away]
        began = time.monotonic()
        if wait(asked, max(0.0, min(FIRST_LOOK, self._left))).not_done:
            self._left -= time.monotonic() - began

    def close(self) -> None:
        """End the threads; calls that hang are left behind."""
        for chore in self._chores:
            chore.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
