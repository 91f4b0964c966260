"""A bound on the bytes of mails in one process's memory, however many mailboxes are pulled at once."""

import threading
import time
from typing import Final

from workers.mail.mailbox_session import MAX_BYTES

CAPACITY: Final = 40 * 1024 * 1024  # bytes of mails of all batches, without those larger than a batch


class MemoryBudget:
    """Shared by all threads that pull. Mails larger than a batch are outside this budget, one at a time.

    So a large mail from a slow server blocks other large ones only, and never waits for small ones.
    """

    def __init__(self, size: int = CAPACITY, batch: int = MAX_BYTES) -> None:
        """`size` for all batches, `batch` for one."""
        self._size = size
        self._batch = batch
        self._taken = 0
        self._large = False
        self._changed = threading.Condition()

    def take(self, size: int, until: float) -> int:
        """Wait until `size` bytes fit; returns what to `give` back. Raises `TimeoutError` at `until`, monotonic."""
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
