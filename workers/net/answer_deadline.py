"""Ends a connection whose broker keeps up its heartbeats and does not answer, as one does for a queue without a leader."""

import time
from typing import Final

import pika
from pika.exceptions import AMQPConnectionError

SECONDS: Final = 30.0  # that one call may wait for its answer: the broker itself gives up on a queue's leader after that
USELESS: Final = 15.0  # that a broker may take nothing at all, until it is left: as long as heartbeats take
_LOOK: Final = 1.0


class AnswerDeadline:
    """Bounds the calls of a `BlockingConnection`, for which pika has no deadline.

    Whoever waits for an answer for more than `seconds`, with no `progress` meanwhile, gets an `AMQPConnectionError`.
    """

    def __init__(self, connection: pika.BlockingConnection, seconds: float = SECONDS) -> None:
        self._inner = connection._impl  # noqa: SLF001 - the callbacks of `call_later` do not run while a call waits
        self._seconds = seconds
        self._since = time.monotonic()
        self._look()

    def progress(self) -> None:
        """Note that no call waits."""
        self._since = time.monotonic()

    def _look(self) -> None:
        waited = time.monotonic() - self._since
        if waited > self._seconds:
            error = AMQPConnectionError(f"the broker has not answered for {waited:.0f} s")
            self._inner._terminate_stream(error)  # noqa: SLF001 - what pika does when heartbeats stay away
        else:
            self._inner._adapter_call_later(_LOOK, self._look)  # noqa: SLF001
