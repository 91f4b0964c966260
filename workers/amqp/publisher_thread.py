"""The publisher for workers that are not asynchronous: publishes whole batches, from a thread of its own."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final

import uvloop

from workers.amqp.confirm_window import Outgoing
from workers.amqp.publisher import WINDOW, Publisher
from workers.amqp.topology import TOPOLOGY, Declaration

_GRACE: Final = 1.0  # seconds past a deadline after which the thread itself counts as stuck
_UNBOUNDED: Final = 1 << 62  # the caller holds the queued messages in memory anyway


class PublisherThread:
    """A `Publisher` from construction to `close`. Safe to use from any thread."""

    def __init__(self, amqp_url: str, name: str, *, topology: Sequence[Declaration] = TOPOLOGY, window: int = WINDOW) -> None:
        self._loop = uvloop.new_event_loop()
        self._publisher = Publisher(amqp_url, name, topology=topology, window=window, backlog=_UNBOUNDED)
        self._loop.call_soon(self._publisher.start)
        self._thread = threading.Thread(target=self._loop.run_forever, name="publisher", daemon=True)
        self._thread.start()

    def ready(self) -> str | None:
        """Give None when messages can be published, as far as is known, else a short reason."""
        return self._publisher.ready()

    def trouble(self) -> str | None:
        """Give a short reason while publishing is impossible or part of the topology is missing."""
        return self._publisher.trouble()

    def publish_all(self, messages: Sequence[Outgoing], deadline: float) -> list[bool]:
        """Publish all and wait `deadline` seconds at most for the confirms; give for each whether the broker has it durably.

        False means that this is not known: publish it again, under the same id. While the broker is away or in alarm
        all are False at once, so wait before trying again.
        """
        if not messages:
            return []
        batch = _Batch(len(messages))
        try:
            self._loop.call_soon_threadsafe(self._send, batch, messages, deadline)
            return batch.done.result(deadline + _GRACE)
        except (TimeoutError, RuntimeError):  # the latter after `close`
            return [False] * len(messages)

    def close(self) -> None:
        """Close the connection and end the thread; messages in flight fail."""
        if self._thread.is_alive():
            closing = asyncio.run_coroutine_threadsafe(self._publisher.close(), self._loop)
            closing.result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    def _send(self, batch: "_Batch", messages: Sequence[Outgoing], deadline: float) -> None:
        until = self._loop.time() + deadline
        for position, message in enumerate(messages):
            self._publisher.send(message, until, partial(batch.settle, position))


class _Batch:
    """Collects the results of one call."""

    def __init__(self, count: int) -> None:
        self.done: Future[list[bool]] = Future()
        self._confirmed = [False] * count
        self._left = count

    def settle(self, position: int, fault: str | None) -> None:
        self._confirmed[position] = fault is None
        self._left -= 1
        if not self._left:
            self.done.set_result(self._confirmed)
