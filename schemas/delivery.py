"""A delivery: one entry owed to one endpoint, and every attempt to pay."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

#: What an answer asks for in its `webhook-delivery` header: no more events, or no more tries of this one.
Wish = Literal["disable", "abort"]

DeliveryState = Literal["pending", "leased", "delivered", "dead", "paused", "discarded"]
Outcome = Literal["delivered", "retry", "dead"]


@dataclass(slots=True)
class Planned:
    """A delivery that fan-out plans in the entry's own transaction. Not to be changed."""

    endpoint_id: int
    tenant: str
    chain_id: UUID
    seq: int
    size: int  # bytes of the body, so that batches can be bounded before the bodies are read
    state: Literal["pending", "paused"]
    ordered: bool = False  # its subject's are delivered one after the other
    waits: bool = False  # for its turn, which whoever has it passes on

    @property
    def is_due(self) -> bool:
        """Whether it is to be sent at once."""
        return self.state == "pending" and not self.waits


@dataclass(slots=True)  # not frozen, like all of which there is one for each delivery: that costs three times as much to make
class Claim:
    """A delivery under a lease: `lease` fences it, nobody else may settle it until `lease_until`. Not to be changed."""

    id: int
    endpoint_id: int
    size: int


@dataclass(slots=True)
class Delivery:
    """A leased delivery with all that is needed to send it. Not to be changed."""

    id: int
    endpoint_id: int
    tenant: str
    attempts: int  # tries so far
    chain_id: UUID
    seq: int
    hash: bytes
    prev_hash: bytes | None
    attributes: bytes  # the hashed JSON
    body: bytes
    fingerprint: bytes
    created_at: datetime
    lease: UUID
    schedule_from: int = 0  # of those tries, the ones before the schedule last began: a replay begins it anew
    ordered: bool = False
    age_from: datetime | None = None  # from when its age counts: a replay or a release begins that anew, too
    blob: str | None = None  # reference of the body, if that is in the blob store


@dataclass(slots=True)
class Receipt:
    """What came of one try to send, before any policy: an answer, or the error that stood in its place. Not to be changed."""

    started_at: datetime
    duration: float  # seconds
    status: int | None = None
    error: str | None = None  # class of failure: timeout, connect, dns, tls, reset, redirect, ...
    detail: str | None = None
    retry_after: float | None = None  # seconds from now, as the answer asked
    response: bytes = b""  # the head of the answer, 4 KiB at most
    reused: bool | None = None  # whether a kept-alive connection served
    wish: Wish | None = None
    address: str | None = None  # that was dialled, with its port; of several the one that answered, or the last
    dns: float | None = None  # seconds until an address was known; this and what follows None where there was no such phase
    connect: float | None = None  # seconds for TCP, and for a proxy's tunnel
    tls: float | None = None  # seconds for the handshake
    first_byte: float | None = None  # seconds from then until the answer began, so the sending of the request is in it


@dataclass(slots=True)
class Settlement:
    """The verdict on one try: what to write. Not to be changed."""

    delivery_id: int
    attempt: int  # 1, 2, ...
    outcome: Outcome
    receipt: Receipt
    next_attempt_at: datetime | None  # for outcome "retry"
    reason: str | None = None  # for outcome "dead"


@dataclass(slots=True)
class Tried:
    """A delivery and the verdict on its try. Not to be changed."""

    delivery: Delivery
    settlement: Settlement
    transport: str = "http"


GONE = 410


#: The error of a receipt for what cannot be made into a request at all; trying again would not help.
UNSENDABLE = "unsendable"


#: The error of a receipt for what the other side will never take: an SMTP server's 5yz for the mail.
REFUSED = "refused"


#: The reason of a dead letter for what became older than its endpoint allows.
EXPIRED: Final = "expired"


#: Errors that the endpoint has no part in: they say nothing of its health.
OURS: Final = frozenset({UNSENDABLE, "internal", "proxy", "broker"})


def summary(receipt: Receipt) -> str | None:
    """What went wrong, in one line for an operator; None when nothing did."""
    return f"{receipt.error}: {receipt.detail}" if receipt.error and receipt.detail else receipt.error
