"""Sees to it that what was declared stays there, while a publisher runs.

Nobody tells a publisher that an exchange or a queue was deleted: it learns it when a message comes back, or when the broker
closes its channel over one, and an idle publisher not at all.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import structlog

from workers.amqp.session import Refused, Session
from workers.amqp.topology import IN, QUEUES, RECEIVED, SETTLE_SECONDS, Declaration

LOOK_SECONDS: Final = 5.0

_log = structlog.get_logger()


class TopologyWatch:
    """Looks every five seconds, and at once when a message found no queue. `trouble` says what is not there just now."""

    def __init__(self, topology: Sequence[Declaration]) -> None:
        self.trouble: str | None = None
        self._topology = topology
        self._queues = {arguments["queue"] for method, arguments in topology if method == "queue_declare"}
        self._exchanges = {arguments["exchange"] for method, arguments in topology if method == "exchange_declare"}
        self._doubt = asyncio.Event()

    def returned(self, exchange: str, routing_key: str) -> None:
        """Take note of a message that found no queue, where it should have found one."""
        if exchange in (IN, RECEIVED) or (not exchange and routing_key in self._queues):
            self.doubt()

    def not_found(self, exchange: str) -> None:
        """Take note of an exchange that was asked for and is not there."""
        if exchange in self._exchanges:
            self.doubt()

    def doubt(self) -> None:
        """Look at once."""
        self._doubt.set()

    async def run(self, session: Session) -> None:
        """Look, and declare again what is gone, until the session is lost; raises `Lost` then."""
        self.trouble = None
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._doubt.wait()
            try:
                await self._look(session)
                self.trouble = None
            except Refused as refused:  # messages may pass all the same, so the session stays
                self.trouble = f"what is missing on the broker cannot be declared: {refused}"
                _log.warning("topology_refused", error=str(refused))
                await asyncio.sleep(LOOK_SECONDS)

    async def _look(self, session: Session) -> None:
        gone = await session.missing(self._topology)
        if gone is None and not self._doubt.is_set():
            return
        self.trouble = f"{gone or 'a binding of the inbox'} was missing and is declared again"
        _log.warning("topology_missing", missing=gone or "a binding of the inbox")
        self._doubt.clear()
        await declare(session, self._topology, settle=True)


async def declare(session: Session, topology: Sequence[Declaration], *, settle: bool) -> None:
    """Make everything exist, as `workers.amqp.topology.declare` does. Raises `Refused` or `Lost`."""
    async with session.aside() as aside:
        for declaration in topology:
            await aside.do(*declaration)
            if settle and declaration is QUEUES[-1]:
                await asyncio.sleep(SETTLE_SECONDS)
