"""A dead letter: what could not go on, kept where someone can look at it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Stage = Literal["admit", "append", "deliver", "actor"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message, event or delivery that stopped at `stage`: a reason from a closed set, a detail for a person.

    Of a message, `headers` holds all that came with its body (`workers.ingest.writer`), and `body` the bytes as received. Of a
    delivery it is a reference: the content stays in the ledger alone.
    """

    stage: Stage
    reason: str
    detail: str
    tenant: str | None = None
    source: str | None = None
    endpoint_id: int | None = None
    delivery_id: int | None = None
    event_id: str | None = None
    routing_key: str | None = None
    content_type: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    body: bytes | None = None
    blob: str | None = None  # reference of the body, where it is in the blob store
    attempts: int = 1
    error: str | None = None  # class of the failure, where the reason does not say it
    first_at: datetime | None = None  # since when it was under way; None: since it is buried
