"""What every transport is: something that makes one try and says what came of it."""

import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from schemas.delivery import UNSENDABLE, Delivery, Receipt
from schemas.endpoint import Endpoint
from workers.net.lease_deadline import Check, unleased

_READ_AHEAD: Final = 128  # pieces

#: (endpoint, delivery, seconds it may take altogether, what to call just before it is sent) -> what came of it. Raises nothing
#: but CancelledError and, when the lease ended before anything was sent, LeaseEnded.
Send = Callable[[Endpoint, Delivery, float, Check], Awaitable[Receipt]]


class Fresh:
    """Random bytes, `size` at a time, each given once: read ahead, because to read them lets go of the interpreter.

    A loop that lets go of it for each delivery waits for other threads as often.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._pieces: list[bytes] = []

    def __call__(self) -> bytes:
        """The next ones."""
        if not self._pieces:
            block = os.urandom(self._size * _READ_AHEAD)
            self._pieces = [block[at : at + self._size] for at in range(0, len(block), self._size)]
        return self._pieces.pop()


class Sender(Protocol):
    """A transport, from `open` to `close` on one event loop."""

    def open(self) -> None:
        """Make ready, on the running loop; connects to nobody yet."""

    async def close(self) -> None:
        """Let go of all connections."""

    async def send(self, endpoint: Endpoint, delivery: Delivery, seconds: float, check: Check = unleased) -> Receipt:
        """Make one try, of `seconds` at most from the look-up of the name to the end of the answer."""


def unsendable(error: Exception) -> Receipt:
    """The receipt for what cannot be made into a request; it would be the same the next time."""
    return Receipt(datetime.now(UTC), 0.0, error=UNSENDABLE, detail=said(error))


def said(error: BaseException) -> str:
    """An error's text, bounded."""
    return f"{type(error).__name__}: {error}"[:500]
