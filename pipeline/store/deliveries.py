"""Statements on deliveries: planned, claimed, loaded, settled."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from pipeline.store.copy import copy_rows, int4, int8, timestamp
from schemas.delivery import Planned

COPY_DELIVERIES = (
    "COPY delivery (endpoint_id, tenant, chain_id, seq, size, state, created_at, next_attempt_at) FROM STDIN (FORMAT binary)"
)

# Delivered with the COMMIT, once however often it is said in the transaction: the relay looks at once, not at its next poll.
NOTIFY_DUE = text("SELECT pg_notify('waxseal_due', '')")


def insert_planned(conn: Connection, planned: Sequence[Planned], now: datetime) -> None:
    """Adds deliveries, due at once, and wakes the relay when the transaction commits."""
    if planned:
        stamp = timestamp(now)
        copy_rows(conn, COPY_DELIVERIES, (_planned_row(each, stamp) for each in planned))
        conn.execute(NOTIFY_DUE)


def _planned_row(planned: Planned, stamp: bytes) -> tuple[bytes | None, ...]:
    return (
        int4(planned.endpoint_id),
        planned.tenant.encode(),
        planned.chain_id.bytes,
        int8(planned.seq),
        int4(planned.size),
        planned.state.encode(),
        stamp,
        stamp if planned.state == "pending" else None,
    )
