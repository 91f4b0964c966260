"""Bytes of mails in the hands of one process: however many mailboxes are pulled at once, only so many."""

import threading
import time
from typing import Final

ROOM: Final = 40 * 1024 * 1024  # bytes; a larger mail is alone


class Room:
    """Shared by all threads that pull. What is larger than the room waits until it is empty, and has it alone."""

    def __init__(self, size: int = ROOM) -> None:
        self._size = size
        self._taken = 0
        self._changed = threading.Condition()

    def take(self, size: int, until: float) -> int:
        """Wait for room until then, of the monotonic clock; give what has to be given back. Raises `TimeoutError`."""
        size = min(size, self._size)
        with self._changed:
            while self._taken + size > self._size:
                left = until - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    raise TimeoutError("too many large mails at once")
            self._taken += size
        return size

    def give(self, size: int) -> None:
        """Give back what was taken."""
        with self._changed:
            self._taken -= size
            self._changed.notify_all()
