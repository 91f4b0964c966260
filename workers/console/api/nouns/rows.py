"""The models of rows that several operations answer, as `ops.admin.views` makes them."""

from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.dead_letter import Stage
from schemas.delivery import DeliveryState
from schemas.job import JobKind, JobState
from workers.console.api.shapes import Chain, Hex, Shape, Time


class Phases(Shape):
    """Seconds of each phase of a try; those that there were."""

    dns: float | None = None
    connect: float | None = None
    tls: float | None = None
    first_byte: float | None = None


class Try(Shape):
    """One try to deliver. What was answered is content: it is revealed on its own."""

    n: int
    started_at: Time
    seconds: float
    outcome: Literal["delivered", "retry", "dead"]
    status: int | None
    error: str | None
    detail: str | None
    address: str | None
    reused: bool | None
    phases: Phases
    response_bytes: int


class DeliveryRow(Shape):
    """A delivery in a list; `attempts` is the number of its tries."""

    id: int
    endpoint: str | None
    event_id: str | None
    type: str | None
    subject: str | None
    chain: Chain
    seq: int
    size: int
    state: DeliveryState
    attempts: int
    created_at: Time
    next_attempt_at: Time | None
    settled_at: Time | None
    error: str | None


class Delivery(DeliveryRow):
    """A delivery with its tries."""

    tries: list[Try]


class Undelivered(Shape):
    """An event that an endpoint does not have yet, with the reason."""

    id: int
    endpoint: str
    subject: str | None
    chain: Chain
    seq: int
    event_id: str | None
    type: str | None
    state: DeliveryState
    attempts: int
    created_at: Time
    next_attempt_at: Time | None
    settled_at: Time | None
    reason: str | None
    dead_letter: int | None


class DeadLetterRow(Shape):
    """A dead letter in a list."""

    id: int
    stage: Stage
    state: Literal["open", "replayed", "discarded"]
    reason: str
    error: str | None
    detail: str
    tenant: str | None
    source: str | None
    endpoint: str | None
    delivery_id: int | None
    event_id: str | None
    routing_key: str | None
    attempts: int
    first_at: Time
    last_at: Time
    decided_at: Time | None
    decided_by: str | None


class Act(Shape):
    """An act of an operator; `done` and `ended_at` are null if it was interrupted, or still runs."""

    id: int
    at: Time
    ended_at: Time | None
    who: str
    act: str
    filter: dict[str, Any]
    planned: int
    done: int | None
    tenant: str | None
    object: str | None
    outcome: Literal["refused", "failed"] | None
    reason: str | None
    means: str | None
    principal: str | None
    role: str | None
    address: str | None
    request_id: str | None
    cell: str | None


class DeadLetter(DeadLetterRow):
    """A dead letter with its tries and the act that closed it. Its message is content: it is revealed on its own."""

    act: Act | None
    chain: Chain | None
    seq: int | None
    tries: list[Try]
    content_type: str | None
    blob: str | None


class Group(Shape):
    """Dead letters of one stage, reason, tenant and endpoint."""

    stage: Stage
    reason: str
    tenant: str | None
    endpoint: str | None
    count: int
    oldest: Time
    newest: Time


class Erased(Shape):
    """The erasure that took an entry's content."""

    by_entry: int
    reason: str
    by: str
    at: Time


class Entry(Shape):
    """An entry of the ledger without its content."""

    seq: int
    kind: str
    id: str | None
    type: str | None
    source: str | None
    subject: str | None
    time: str | None
    datacontenttype: str | None
    at: Time | None
    chain: Chain
    hash: Hex
    prev: Hex | None
    attributes: dict[str, Any] | None
    blob: str | None
    erased: Erased | None


class Job(Shape):
    """A long act, done in the background. `left`: how many were left as they were, by reason; `act`: its id in the audit."""

    id: int
    kind: JobKind
    tenant: str | None
    arguments: dict[str, Any]
    who: str
    state: JobState
    total: Annotated[int | None, Field(description="how many were counted; null: not known beforehand")]
    done: int
    left: dict[str, int]
    error: str | None
    result: dict[str, Any] | None
    owner: str | None
    created_at: Time
    started_at: Time | None
    ended_at: Time | None
    rate: float | None
    per_second: float | None
    cancel_requested: bool
    cancelled_by: str | None
    act: int


class Preview(Shape):
    """What an act would be on, counted by its own condition."""

    kind: JobKind
    tenant: str | None
    count: int | None
    oldest: Time | None
    newest: Time | None
    groups: list[Group]
    samples: list[dict[str, Any]]
