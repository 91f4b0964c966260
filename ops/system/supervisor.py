"""Watches processes and restarts those that die.

Written here, because honcho does not restart and circus needs tornado and pyzmq.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from ops.servers.child import Child
from ops.servers.child import stop as stop_children
from ops.telemetry import table
from ops.telemetry.label_sets import SUPERVISED
from ops.telemetry.metric_kinds import closed

FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 30.0
FORGIVEN_AFTER: Final = 60.0  # seconds alive, after which the delays begin anew
_LOOK_EVERY: Final = 0.1

_log = structlog.get_logger()


@dataclass
class Backoff:
    """How long to wait before the next restart: twice as long each time, until the process lived for a minute."""

    delay: float = FIRST_DELAY

    def next(self, lived: float) -> float:
        """Give the delay after a process that lived for `lived` seconds."""
        wait = FIRST_DELAY if lived >= FORGIVEN_AFTER else self.delay
        self.delay = min(wait * 2, LONGEST_DELAY)
        return wait


@dataclass
class _Watch:
    child: Child
    backoff: Backoff
    due: float | None = None


@dataclass
class _Telling:
    """When `changed` is to be called; None when it knows of every restart."""

    backoff: Backoff
    due: float | None = None


class Supervisor:
    """Restarts the children that die, each after its own backoff; calls `changed` after each restart.

    `ended` is called with the name of each that ended, how, and when (monotonic).
    Whatever fails meanwhile is logged and tried again later: an error here would end the whole system.
    """

    def __init__(
        self,
        children: Sequence[Child],
        changed: Callable[[], None],
        ended: Callable[[str, str, float], None] = lambda _name, _how, _now: None,
    ) -> None:
        self._watches = [_Watch(child, Backoff()) for child in children]
        self._changed = changed
        self._ended = ended
        self._telling = _Telling(Backoff())

    def run(self, interrupted: Callable[[], None]) -> None:
        """Watch until `interrupted`, called on every round, raises; the children are left as they are."""
        while True:
            interrupted()
            for watch in self._watches:
                self._look(watch, time.monotonic())
            self._tell(time.monotonic())
            time.sleep(_LOOK_EVERY)

    def _look(self, watch: _Watch, now: float) -> None:
        child = watch.child
        if watch.due is None:
            if not child.running:
                self._schedule(watch, now)
        elif now >= watch.due:
            self._restart(watch, now)

    def _schedule(self, watch: _Watch, now: float) -> None:
        child, lived = watch.child, now - watch.child.began
        wait = watch.backoff.next(lived)
        watch.due = now + wait
        child.last_end = child.failure()
        _log.warning("process_died", name=child.name, how=child.last_end, after=round(lived, 1), restart_in=wait)
        self._ended(child.name, child.last_end, now)
        try:
            stop_children([child], 5)  # and with it the processes that it had started
        except Exception as error:  # noqa: BLE001 - see the class
            _log.error("process_not_cleared", name=child.name, reason=_reason(error))

    def _restart(self, watch: _Watch, now: float) -> None:
        try:
            watch.child.start()
        except Exception as error:  # noqa: BLE001 - see the class
            wait = watch.backoff.next(0)
            watch.due = now + wait
            _log.error("process_not_restarted", name=watch.child.name, reason=_reason(error), restart_in=wait)
            self._ended(watch.child.name, f"cannot be started: {_reason(error)}", now)
            return
        watch.due = None
        watch.child.restarts += 1
        table.PROCESS_RESTARTS.labels(closed(watch.child.role, SUPERVISED)).inc()
        _log.info("process_restarted", name=watch.child.name, new_pid=watch.child.pid)
        self._telling = _Telling(Backoff(), due=now)

    def _tell(self, now: float) -> None:
        telling = self._telling
        if telling.due is None or now < telling.due:
            return
        try:
            self._changed()
        except Exception as error:  # noqa: BLE001 - see the class; a disk may be full
            wait = telling.backoff.next(0)
            telling.due = now + wait
            _log.error("change_not_told", reason=_reason(error), again_in=wait)
            return
        telling.due = None


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
