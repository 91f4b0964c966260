"""Dramatiq's worker, but its idle threads sleep until there is work or they are to stop.

Each of its own wakes up several times a second to see whether to stop: half of what an idle deliver process costs.
"""

import time
from queue import Empty, PriorityQueue
from typing import Any, Final

import dramatiq

_PAUSE: Final = 0.01  # seconds between two looks of a thread that is about to be told to stop


class WorkQueue(PriorityQueue[Any]):
    """What the threads of a worker wait for."""

    def __init__(self) -> None:
        super().__init__()
        self._ended = False

    def end(self) -> None:
        """Let nobody wait any more."""
        with self.not_empty:
            self._ended = True
            self.not_empty.notify_all()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: ARG002 - dramatiq gives one
        """Take the next item; unless `block` is false, wait for it until the end, however short the timeout is."""
        if block:
            with self.not_empty:
                self.not_empty.wait_for(lambda: self._qsize() or self._ended)
        try:
            return super().get(block=False)
        except Empty:
            if block and self._ended:
                time.sleep(_PAUSE)
            raise


class Worker(dramatiq.Worker):
    """A worker with such a queue."""

    def __init__(self, broker: dramatiq.Broker, *, worker_threads: int, worker_timeout: int) -> None:
        super().__init__(broker, worker_threads=worker_threads, worker_timeout=worker_timeout)
        self.work_queue: WorkQueue = WorkQueue()

    def stop(self, timeout: int = 600_000) -> None:
        """Let the threads finish what they hold, within `timeout` milliseconds, and requeue the rest."""
        self.work_queue.end()
        super().stop(timeout)
