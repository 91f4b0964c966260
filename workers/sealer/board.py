"""What the threads of the sealer tell each other: which checkpoints are published, and what anchors have seen."""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pipeline.ledger.checkpoint import Checkpoint
from pipeline.ledger.judge import Outside
from pipeline.store.log.checkpoints import OpenLog

TOLD: Final = 3600.0  # seconds between two operator events of one dispute


@dataclass(frozen=True, slots=True)
class Published:
    """A log whose newest checkpoint is published, here without cosignatures.

    `note` is kept in the database, and is what anchors get; `signed` has the same text, signed by the keys that are active now.
    """

    log: OpenLog
    checkpoint: Checkpoint
    note: str
    signed: str


class Board:
    """Safe for all threads. Nothing on it needs to outlive the process: it is found again outside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._published: dict[int, Published] = {}
        self._seen: dict[int, dict[str, Outside]] = {}
        self._alarmed: set[int] = set()
        self._lines: dict[int, tuple[int, list[str]]] = {}
        self._disputed: dict[tuple[int, str], float] = {}  # log, place -> when it was told (monotonic)

    def show(self, published: Published) -> None:
        """The log's newest checkpoint is this one."""
        with self._lock:
            self._published[published.log.id] = published

    def withdraw(self, log_id: int) -> None:
        """The log is refused: nothing of it is to be anchored."""
        with self._lock:
            self._published.pop(log_id, None)

    def published(self) -> list[Published]:
        """The logs that may be anchored."""
        with self._lock:
            return list(self._published.values())

    def newest(self, log_id: int) -> Published | None:
        """The log's newest checkpoint; None if it may not be anchored, or none was published yet."""
        with self._lock:
            return self._published.get(log_id)

    def saw(self, log_id: int, seen: Outside, *, alarm: bool = False) -> None:
        """An anchor has, or had, this checkpoint. With `alarm`, the log is to be judged again even if it does not grow."""
        with self._lock:
            self._seen.setdefault(log_id, {})[seen.place] = seen
            if alarm:
                self._alarmed.add(log_id)

    def seen(self, log_id: int) -> list[Outside]:
        """What anchors have of the log."""
        with self._lock:
            return list(self._seen.get(log_id, {}).values())

    def take_alarm(self, log_id: int) -> bool:
        """Whether an anchor has contradicted the log since this was last asked."""
        with self._lock:
            alarmed = log_id in self._alarmed
            self._alarmed.discard(log_id)
            return alarmed

    def disputes(self, log_id: int, place: str) -> bool:
        """An anchor disputes the log; whether that is to be told: once an hour."""
        now = time.monotonic()
        with self._lock:
            told = self._disputed.get((log_id, place))
            due = told is None or now - told >= TOLD
            if due:
                self._disputed[log_id, place] = now
            return due

    def disputed(self, log_id: int) -> bool:
        """Whether that was told in the last hour."""
        with self._lock:
            told = [at for (log, _), at in self._disputed.items() if log == log_id]
        return bool(told) and time.monotonic() - max(told) < TOLD

    def cosigned(self, log_id: int, size: int, lines: Iterable[str]) -> None:
        """Witnesses have signed the checkpoint of this size too."""
        with self._lock:
            known, before = self._lines.get(log_id, (0, []))
            kept = before if known == size else []
            self._lines[log_id] = (size, [*kept, *(line for line in lines if line not in kept)])

    def cosignatures(self, log_id: int, size: int) -> list[str]:
        """The lines to add to the checkpoint of this size."""
        with self._lock:
            known, lines = self._lines.get(log_id, (0, []))
            return list(lines) if known == size else []
