"""What tests of the transports share: a delivery, terms, and tries on the event loop that production uses."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

import orjson
import uvloop

from pipeline.delivery.addresses import LOOPBACK, networks
from schemas.delivery import Delivery, Receipt
from schemas.endpoint import Endpoint
from workers.net.terms import Terms
from workers.transports.transport import Sender

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LOCAL = Terms("waxseal/test", networks(LOOPBACK))
PUBLIC = Terms("waxseal/test")

Result = TypeVar("Result")

ATTRIBUTES = {
    "id": "e-1",
    "source": "shop",
    "specversion": "1.0",
    "type": "order.paid",
    "subject": "order 1",
    "time": "2026-01-01T00:00:00Z",
    "datacontenttype": "application/json",
}


def sample(body: bytes = b'{"amount": 1.10}', number: int = 7, **attributes: str) -> Delivery:
    """A delivery of the second entry of its chain."""
    said = orjson.dumps(ATTRIBUTES | attributes, option=orjson.OPT_SORT_KEYS)
    chain, lease = UUID(int=5), UUID(int=1)
    return Delivery(number, 1, "acme", 0, chain, 1, b"h" * 32, b"p" * 32, said, body, b"f" * 16, datetime.now(UTC), lease)


def to(url: str, **terms: object) -> Endpoint:
    return Endpoint(1, "acme", "billing", url, (SECRET,), **terms)  # type: ignore[arg-type]


def run(make: Callable[[Terms], Sender], work: Callable[[Sender], Awaitable[Result]], terms: Terms = LOCAL) -> Result:
    """Runs `work` with an open sender, and closes the sender afterwards."""

    async def main() -> Result:
        sender = make(terms)
        sender.open()
        try:
            return await work(sender)
        finally:
            await sender.close()

    return uvloop.run(main())


def receipts(
    make: Callable[[Terms], Sender],
    endpoints: Sequence[Endpoint],
    terms: Terms = LOCAL,
    delivery: Delivery | None = None,
    seconds: float = 2.0,
) -> list[Receipt]:
    """Sends to all endpoints at once; returns the receipts."""
    sent = delivery or sample()
    return run(make, lambda sender: asyncio.gather(*(sender.send(each, sent, seconds) for each in endpoints)), terms)
