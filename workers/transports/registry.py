"""The senders, one for each transport. Every failure is a receipt: what comes of it is for the pipeline to say."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from schemas.delivery import Delivery, Receipt
from schemas.endpoint import Endpoint
from workers.net.lease_deadline import Check, unleased
from workers.net.terms import Terms
from workers.transports.amqp import AmqpSender
from workers.transports.http import HttpSender
from workers.transports.smtp import SmtpSender
from workers.transports.transport import Sender

#: By the names in `schemas.config.transports`. To add a transport, add it there, and here a line for the file with its sender.
SENDERS: Final[Mapping[str, Callable[[Terms], Sender]]] = {
    "http": HttpSender,
    "amqp": AmqpSender,
    "smtp": SmtpSender,
}


class Senders:
    """All senders, from `open` to `close` on one event loop."""

    def __init__(self, terms: Terms) -> None:
        self._senders = {name: make(terms) for name, make in SENDERS.items()}

    def open(self) -> None:
        """Make ready, on the running loop."""
        for sender in self._senders.values():
            sender.open()

    async def close(self) -> None:
        """Let go of all connections."""
        for sender in self._senders.values():
            await sender.close()

    def send(self, endpoint: Endpoint, delivery: Delivery, seconds: float, check: Check = unleased) -> Awaitable[Receipt]:
        """Await what this gives: one try over the endpoint's transport, of `seconds` at most.

        Calls `check` just before it sends. Raises nothing but CancelledError and what `check` raises.
        """
        sender = self._senders.get(endpoint.transport)
        return _unknown(endpoint.transport) if sender is None else sender.send(endpoint, delivery, seconds, check)


async def _unknown(transport: str) -> Receipt:
    """A later version configured the endpoint: it is tried again, and its breaker opens while only processes like this try."""
    detail = f"this version does not know the transport {transport}: run the one that configured the endpoint"
    return Receipt(datetime.now(UTC), 0.0, error="transport", detail=detail)
