"""Deliveries to test with, made by the route itself."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine

from ops.runtime.db import transaction
from pipeline.admit import admit
from pipeline.append import append
from pipeline.claim import Lease, Round, claim, claim_anything
from pipeline.store.deliveries import claims
from schemas.catalog import Catalog
from schemas.delivery import Claim
from schemas.endpoint import Endpoint
from schemas.event import Event
from schemas.message import Message
from schemas.source import Source

LEASE = timedelta(seconds=90)
CATALOG = Catalog(1, {"acme": b"k" * 32}, {("acme", "orders"): Source("acme", "orders", "amqp")}, {})


def event(id: str, subject: str = "order-1", body: bytes = b"{}") -> Event:
    message = Message("acme.orders", body, "application/json", None, {"subject": subject}, id, "order.paid")
    return admit(message, CATALOG, datetime.now(UTC))[0]


def record(
    engine: Engine, events: Sequence[Event], endpoint_ids: Sequence[int] = (1,), now: datetime | None = None, **terms: object
) -> None:
    """Records `events`, and plans a delivery of each to each endpoint, due at `now`. `terms` are the endpoints'."""
    with transaction(engine) as conn:
        plan(conn, events, endpoint_ids, now, **terms)


def plan(
    conn: Connection,
    events: Sequence[Event],
    endpoint_ids: Sequence[int] = (1,),
    now: datetime | None = None,
    **terms: object,
) -> None:
    """The same in a transaction that is open already."""
    subscribed = tuple(
        (Endpoint(id, "acme", f"e{id}", "http://127.0.0.1/", **terms), lambda _attributes: True)  # type: ignore[arg-type]
        for id in endpoint_ids
    )
    append(conn, events, {"acme": subscribed}, now or datetime.now(UTC))


def claimed(
    engine: Engine, limit: int = 100, now: datetime | None = None, lease_for: timedelta = LEASE
) -> tuple[UUID, list[Claim]]:
    """Makes one claim at `now`; returns its lease and the claimed deliveries."""
    lease, now = uuid4(), now or datetime.now(UTC)
    with transaction(engine) as conn:
        return lease, list(claim_anything(conn, Lease(lease, now, now + lease_for), limit))


def one_round(engine: Engine, now: datetime, window: int = 100) -> tuple[UUID, Round]:
    """The result of one round of a relay over all endpoints, with its lease. `window` is for each endpoint."""
    lease = uuid4()
    with transaction(engine) as conn:
        due, terms = claims.survey(conn), Lease(lease, now, now + LEASE)
        return lease, claim(conn, due, terms, lambda _: window, limit=500, max_leased=4000, random=0.5)


def in_message(claimed: Sequence[Claim]) -> list[tuple[int, int, int]]:
    """The claims in the form in which the relay hands them to the actor."""
    return [(each.endpoint_id, each.id, each.size) for each in claimed]
