"""Events of a ledger, as ingest would admit them, and recorded."""

from datetime import UTC, datetime

from sqlalchemy import Engine

from ops.runtime.db import transaction
from pipeline.append import append
from pipeline.dedupe import chain_key, identity
from schemas.event import Event

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def event_of(key: bytes, tenant: str, subject: str, id_: str, body: bytes = b"{}", **changed: str) -> Event:
    """An event of a tenant that has this fingerprint key; `changed` are attributes."""
    attributes = {"id": id_, "source": "shop", "type": "order.paid", "specversion": "1.0", "subject": subject}
    attributes |= {"datacontenttype": "application/json", "time": "2026-01-01T12:00:00Z", **changed}
    return Event(tenant, attributes, body, identity(key, attributes), chain_key(key, subject))


def record(engine: Engine, *events: Event, now: datetime = NOW) -> None:
    """Records the events in one transaction."""
    with transaction(engine) as conn:
        append(conn, events, {}, now)
