"""The interface of transports: one attempt to send, which gives a receipt."""

import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from schemas.delivery import UNSENDABLE, Delivery, Receipt
from schemas.endpoint import Endpoint
from workers.net.lease_deadline import Check, unleased

_READ_AHEAD: Final = 128  # pieces

#: (endpoint, delivery, seconds for the whole attempt, check to call just before sending) -> receipt. Raises only
#: CancelledError and, when the lease ended before anything was sent, LeaseEnded.
Send = Callable[[Endpoint, Delivery, float, Check], Awaitable[Receipt]]


class Fresh:
    """Random bytes, `size` at a time, each given once. They are read ahead, because reading them releases the GIL.

    A loop that releases the GIL for each delivery waits for other threads as often.
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
        """Make ready, on the running loop; connect to nothing yet."""

    async def close(self) -> None:
        """Close all connections."""

    async def send(self, endpoint: Endpoint, delivery: Delivery, seconds: float, check: Check = unleased) -> Receipt:
        """Make one attempt, of `seconds` at most from the look-up of the name to the end of the answer."""


def unsendable(error: Exception) -> Receipt:
    """The receipt for a delivery that cannot be encoded as a request; a retry would fail alike."""
    return Receipt(datetime.now(UTC), 0.0, error=UNSENDABLE, detail=said(error))


def said(error: BaseException) -> str:
    """An error's text, bounded."""
    return f"{type(error).__name__}: {error}"[:500]
