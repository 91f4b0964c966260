"""Keeps the topology declared while a publisher runs.

The broker does not tell a publisher that an exchange or a queue was deleted. A publisher learns it when a message is returned,
or when the broker closes its channel because of one; an idle publisher does not learn it at all.
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
    """Checks every five seconds, and at once when a message found no queue. `trouble` says what is missing at the moment."""

    def __init__(self, topology: Sequence[Declaration]) -> None:
        self.trouble: str | None = None
        self._topology = topology
        self._queues = {arguments["queue"] for method, arguments in topology if method == "queue_declare"}
        self._exchanges = {arguments["exchange"] for method, arguments in topology if method == "exchange_declare"}
        self._check_now = asyncio.Event()

    def returned(self, exchange: str, routing_key: str) -> None:
        """Note a returned message; check at once if it should have found a queue."""
        if exchange in (IN, RECEIVED) or (not exchange and routing_key in self._queues):
            self.check_soon()

    def not_found(self, exchange: str) -> None:
        """Note an exchange that was found missing; check at once if the topology declares it."""
        if exchange in self._exchanges:
            self.check_soon()

    def check_soon(self) -> None:
        """Have the topology checked at once."""
        self._check_now.set()

    async def run(self, session: Session) -> None:
        """Check, and declare again what is missing, until the session is lost; then raise `Lost`."""
        self.trouble = None
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._check_now.wait()
            try:
                await self._look(session)
                self.trouble = None
            except Refused as refused:  # messages may still be routed, so keep the session
                self.trouble = f"what is missing on the broker cannot be declared: {refused}"
                _log.warning("topology_refused", error=str(refused))
                await asyncio.sleep(LOOK_SECONDS)

    async def _look(self, session: Session) -> None:
        gone = await session.missing(self._topology)
        if gone is None and not self._check_now.is_set():
            return
        self.trouble = f"{gone or 'a binding of the inbox'} was missing and is declared again"
        _log.warning("topology_missing", missing=gone or "a binding of the inbox")
        self._check_now.clear()
        await declare(session, self._topology, settle=True)


async def declare(session: Session, topology: Sequence[Declaration], *, settle: bool) -> None:
    """Declare the topology, as `workers.amqp.topology.declare` does. Raises `Refused` or `Lost`."""
    async with session.side_channel() as channel:
        for declaration in topology:
            await channel.do(*declaration)
            if settle and declaration is QUEUES[-1]:
                await asyncio.sleep(SETTLE_SECONDS)
