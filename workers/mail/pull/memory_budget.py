"""Bytes of mails in the hands of one process: however many mailboxes are pulled at once, only so many."""

import threading
import time
from typing import Final

from workers.mail.mailbox_session import MAX_BYTES

ROOM: Final = 40 * 1024 * 1024  # bytes, of mails that come by batches


class MemoryBudget:
    """Shared by all threads that pull. A mail that is larger than a batch has a room of its own, and is there alone.

    So a large mail from a slow server is in the way of other large ones only, and never waits for all small ones to be done.
    """

    def __init__(self, size: int = ROOM, batch: int = MAX_BYTES) -> None:
        """`size` for all batches, `batch` for one."""
        self._size = size
        self._batch = batch
        self._taken = 0
        self._large = False
        self._changed = threading.Condition()

    def take(self, size: int, until: float) -> int:
        """Wait for room until then, of the monotonic clock; give what has to be given back. Raises `TimeoutError`."""
        with self._changed:
            while not self._fits(size):
                left = until - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    raise TimeoutError("too many large mails at once")
            if size > self._batch:
                self._large = True
            else:
                self._taken += size
        return size

    def give(self, size: int) -> None:
        """Give back what was taken."""
        with self._changed:
            if size > self._batch:
                self._large = False
            else:
                self._taken -= size
            self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return not self._large if size > self._batch else self._taken + size <= self._size
