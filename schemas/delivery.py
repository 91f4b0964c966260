"""A delivery: one entry to be sent to one endpoint, and every attempt to send it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from schemas.trace import TraceContext

#: What a response asks for in its `webhook-delivery` header: no more events at all, or no more tries of this one.
Wish = Literal["disable", "abort"]

DeliveryState = Literal["pending", "leased", "delivered", "dead", "paused", "discarded"]
Outcome = Literal["delivered", "retry", "dead"]


@dataclass(slots=True)
class Planned:
    """A delivery that fan-out plans in the entry's own transaction. Do not modify."""

    endpoint_id: int
    tenant: str
    chain_id: UUID
    seq: int
    size: int  # bytes of the body, so that batches can be bounded before the bodies are read
    state: Literal["pending", "paused"]
    ordered: bool = False  # deliveries of one subject are sent one after the other
    waits: bool = False  # for its turn: the delivery before it passes the turn on when it ends

    @property
    def is_due(self) -> bool:
        """Whether it is due at once."""
        return self.state == "pending" and not self.waits


@dataclass(slots=True)  # not frozen, like all classes with an instance per delivery: a frozen one takes 3 times as long to make
class Claim:
    """A delivery that was claimed: only the holder of its lease may settle it, until the lease ends. Do not modify."""

    id: int
    endpoint_id: int
    size: int


@dataclass(slots=True)
class Delivery:
    """A leased delivery with everything needed to send it. Do not modify."""

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
    schedule_from: int = 0  # tries made before the schedule last restarted; a replay restarts it
    ordered: bool = False
    age_from: datetime | None = None  # start of its age, if not created_at; a replay or a release resets it
    blob: str | None = None  # the body's reference, if it is in the blob store
    trace: TraceContext | None = None  # the span of this attempt, while traces are recorded


@dataclass(slots=True)
class Receipt:
    """The result of one try to send, before any policy: a response, or the error that prevented one. Do not modify."""

    started_at: datetime
    duration: float  # seconds
    status: int | None = None
    error: str | None = None  # class of failure: timeout, connect, dns, tls, reset, redirect, ...
    detail: str | None = None
    retry_after: float | None = None  # seconds from now, as the response asked
    response: bytes = b""  # the first 4 KiB of the response, at most
    reused: bool | None = None  # whether a kept-alive connection was used
    wish: Wish | None = None
    address: str | None = None  # dialled, with its port; of several, the one that answered, else the last
    dns: float | None = None  # seconds to resolve the name; like the next three, None if the try had no such phase
    connect: float | None = None  # seconds for TCP, with a proxy's tunnel
    tls: float | None = None  # seconds for the TLS handshake
    first_byte: float | None = None  # seconds from the open connection to the response's first byte, the sending included


@dataclass(slots=True)
class Settlement:
    """The verdict on one try: what to write to the database. Do not modify."""

    delivery_id: int
    attempt: int  # 1, 2, ...
    outcome: Outcome
    receipt: Receipt
    next_attempt_at: datetime | None  # for outcome "retry"
    reason: str | None = None  # for outcome "dead"


@dataclass(slots=True)
class Tried:
    """A delivery and the verdict on its try. Do not modify."""

    delivery: Delivery
    settlement: Settlement
    transport: str = "http"


GONE = 410


#: The error of a receipt when no request can be made of the event; trying again would not help.
UNSENDABLE = "unsendable"


#: The error of a receipt when the endpoint will never accept the event: an SMTP server's 5yz reply to the mail.
REFUSED = "refused"


#: The reason of a dead letter for a delivery older than its endpoint allows.
EXPIRED: Final = "expired"


#: Errors that the endpoint did not cause: they do not count for its health.
OURS: Final = frozenset({UNSENDABLE, "internal", "proxy", "broker"})


def summary(receipt: Receipt) -> str | None:
    """The error in one line, for an operator; None when there was no error."""
    return f"{receipt.error}: {receipt.detail}" if receipt.error and receipt.detail else receipt.error
