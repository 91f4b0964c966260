"""A dead letter: a message, event or delivery that could not be processed further, kept for an operator to decide about."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

Stage = Literal["admit", "append", "deliver", "actor"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message, event or delivery that failed at `stage`, with a reason from a closed set and a detail for a person.

    For a message, `headers` holds everything that came with its body (`pipeline.bury`), and `body` the bytes as received. For
    a delivery it holds only references: the content stays in the ledger alone.
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
    blob: str | None = None  # the body's reference, if it is in the blob store
    attempts: int = 1
    error: str | None = None  # class of the failure, where the reason does not name it
    first_at: datetime | None = None  # when processing began; None: when it was buried


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """A selection of dead letters: by default all that are open. Times are those of the last failure (`last_at`)."""

    tenant: str | None = None
    endpoint: str | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    ids: Sequence[int] | None = None
    closed: bool = False  # the replayed and discarded ones too
    stage: Stage | None = None

    def asked(self) -> dict[str, object]:
        """The conditions that are set; empty for all open dead letters."""
        return {name: value for name, value in asdict(self).items() if value not in (None, False)}
