"""The transports. Every failure is a receipt: what comes of it is for the pipeline to say."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from schemas.delivery import Delivery, Receipt
from schemas.endpoint import Endpoint, Transport
from workers.leases import Check, unleased
from workers.send_amqp import AmqpSender
from workers.send_http import HttpSender
from workers.send_smtp import SmtpSender
from workers.sending import Sender, Terms

#: To add a transport, add it here, and its form to `schemas.endpoint` and `schemas.config_endpoint`.
TRANSPORTS: Final[Mapping[Transport, Callable[[Terms], Sender]]] = {
    "http": HttpSender,
    "amqp": AmqpSender,
    "smtp": SmtpSender,
}


class Senders:
    """All transports, from `open` to `close` on one event loop."""

    def __init__(self, terms: Terms) -> None:
        self._senders = {name: make(terms) for name, make in TRANSPORTS.items()}

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
        return self._senders[endpoint.transport].send(endpoint, delivery, seconds, check)
