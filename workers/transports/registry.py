"""The senders, one for each transport. They turn every failure into a receipt; the pipeline decides what follows from it."""

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

#: By the names in `schemas.config.transports`. To add a transport, add it there, and a line for its sender here.
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
        """Close all connections."""
        for sender in self._senders.values():
            await sender.close()

    def send(self, endpoint: Endpoint, delivery: Delivery, seconds: float, check: Check = unleased) -> Awaitable[Receipt]:
        """Make one attempt over the endpoint's transport, of `seconds` at most.

        Calls `check` just before it sends. Raises only CancelledError and the errors of `check`.
        """
        sender = self._senders.get(endpoint.transport)
        return _unknown(endpoint.transport) if sender is None else sender.send(endpoint, delivery, seconds, check)


async def _unknown(transport: str) -> Receipt:
    """The receipt for an endpoint that a later version configured: retried; its breaker opens if only old processes try."""
    detail = f"this version does not know the transport {transport}: run the one that configured the endpoint"
    return Receipt(datetime.now(UTC), 0.0, error="transport", detail=detail)
