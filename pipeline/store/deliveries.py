"""Statements on deliveries: planned, claimed, loaded, settled. All fenced: who no longer holds the lease writes nothing."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import starmap
from struct import Struct
from typing import Literal
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.deliver import summary
from pipeline.store.copy import copy_rows, int4, int8, timestamp
from schemas.delivery import Claim, Delivery, Planned, Settlement

COPY_DELIVERIES = (
    "COPY delivery (endpoint_id, tenant, chain_id, seq, size, state, created_at, next_attempt_at) FROM STDIN (FORMAT binary)"
)

# Delivered with the COMMIT, once however often it is said in the transaction: the relay looks at once, not at its next poll.
NOTIFY_DUE = text("SELECT pg_notify('waxseal_due', '')")

# On a connection that is kept for it, outside any transaction: what is said there is heard at once.
LISTEN_DUE = text("LISTEN waxseal_due")

# A lease that a crash of Postgres forgets is a delivery that is due again: nothing to wait for the disk for.
FORGETTABLE = text("SET LOCAL synchronous_commit = off")

# Stops at the bound, and reads the index of leased rows alone, so it costs the same whatever the table holds.
COUNT_LEASED = text("SELECT count(*) FROM (SELECT FROM delivery WHERE state = 'leased' LIMIT :at_most) AS leased")

# One statement, and rows that another relay holds are skipped, so that no two relays get the same row. Materialized, because
# a plan that ran the inner query twice would lock twice as many.
CLAIM = text("""
    WITH due AS MATERIALIZED (
      SELECT id FROM delivery WHERE state = 'pending' AND next_attempt_at <= :now
      ORDER BY next_attempt_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    UPDATE delivery SET state = 'leased', next_attempt_at = NULL, lease = :lease, lease_until = :until
    FROM due WHERE delivery.id = due.id
    RETURNING delivery.id, endpoint_id, size""")

# When the relay has to look again, if nobody wakes it before.
NEXT_DUE = text("SELECT next_attempt_at FROM delivery WHERE state = 'pending' ORDER BY next_attempt_at LIMIT 1")

# Whatever became of the holder: killed, cut off, or its message lost by the broker.
EXPIRE_LEASES = text("""
    WITH ended AS MATERIALIZED (
      SELECT id FROM delivery WHERE state = 'leased' AND lease_until <= :now
      ORDER BY lease_until LIMIT :limit FOR UPDATE SKIP LOCKED)
    UPDATE delivery SET state = 'pending', next_attempt_at = :now, lease = NULL, lease_until = NULL
    FROM ended WHERE delivery.id = ended.id""")

# The lease is part of the key: a repeated message, or one that outlived its lease, finds nothing.
LOAD_LEASED = text("""
    SELECT delivery.id, endpoint_id, delivery.tenant, attempts, delivery.chain_id, delivery.seq, hash, prev_hash, attributes,
           body, uuid_send(fingerprint), created_at, delivery.lease, schedule_from
    FROM unnest(CAST(:ids AS bigint[]), CAST(:leases AS uuid[])) AS held (id, lease)
    JOIN delivery ON delivery.id = held.id AND delivery.lease = held.lease
    JOIN entry ON entry.chain_id = delivery.chain_id AND entry.seq = delivery.seq
    LEFT JOIN content ON content.chain_id = delivery.chain_id AND content.seq = delivery.seq""")

# Without a try: handed back to be claimed again, kept while the endpoint is disabled, or given up with it.
MOVE = text("""
    UPDATE delivery SET state = :state, next_attempt_at = :due, settled_at = :settled_at, error = coalesce(:error, error),
                        lease = NULL, lease_until = NULL
    FROM unnest(CAST(:ids AS bigint[]), CAST(:leases AS uuid[])) AS held (id, lease)
    WHERE delivery.id = held.id AND delivery.lease = held.lease""")

# After a try. Gives back the ids whose lease still held: only those get an attempt and, when they are dead, a dead letter.
SETTLE = text("""
    UPDATE delivery SET state = tried.state, attempts = tried.attempts, next_attempt_at = tried.due, error = tried.error,
                        settled_at = CASE WHEN tried.state = 'pending' THEN NULL ELSE CAST(:now AS timestamptz) END,
                        lease = NULL, lease_until = NULL
    FROM unnest(CAST(:ids AS bigint[]), CAST(:leases AS uuid[]), CAST(:states AS text[]), CAST(:attempts AS int[]),
                CAST(:dues AS timestamptz[]), CAST(:errors AS text[])) AS tried (id, lease, state, attempts, due, error)
    WHERE delivery.id = tried.id AND delivery.lease = tried.lease
    RETURNING delivery.id""")

COPY_ATTEMPTS = (
    "COPY attempt (delivery_id, n, started_at, seconds, outcome, status, error, detail, response) FROM STDIN (FORMAT binary)"
)

# Asked first, because an UPDATE moves the catalog's version even when it changes nothing.
STILL_ACTIVE = text("SELECT id FROM endpoint WHERE id = ANY(CAST(:ids AS int[])) AND state = 'active'")

# What it is still owed is set aside as it comes up, and what is planned from now on is planned as paused.
DISABLE = text("""
    UPDATE endpoint SET state = 'disabled', reason = :reason WHERE id = ANY(CAST(:ids AS int[])) AND state = 'active'""")

Held = tuple[int, UUID]  # a delivery's id and the lease that it is held under

State = Literal["pending", "paused", "discarded"]

STATES = {"delivered": "delivered", "retry": "pending", "dead": "dead"}

_real = Struct(">f").pack


@dataclass(frozen=True, slots=True)
class Loaded:
    """What could be loaded of what was asked for: whole deliveries, and the ids of those whose content was erased."""

    deliveries: Sequence[Delivery]
    erased: Collection[int]


def insert_planned(conn: Connection, planned: Sequence[Planned], now: datetime) -> None:
    """Adds deliveries, due at once, and wakes the relay when the transaction commits."""
    if planned:
        stamp = timestamp(now)
        copy_rows(conn, COPY_DELIVERIES, (_planned_row(each, stamp) for each in planned))
        conn.execute(NOTIFY_DUE)


def listen(conn: Connection) -> None:
    """Subscribes `conn`, which must commit by itself, to what `insert_planned` says."""
    conn.execute(LISTEN_DUE)


def heard(conn: Connection, seconds: float) -> bool:
    """Waits for it, `seconds` at most; whether anything was said since the last time."""
    driver = conn.connection.driver_connection
    assert driver is not None
    return bool(list(driver.notifies(timeout=seconds, stop_after=1)))


def leased(conn: Connection, at_most: int) -> int:
    """How many deliveries are leased, counted up to `at_most`."""
    return int(conn.execute(COUNT_LEASED, {"at_most": at_most}).scalar_one())


def claim(conn: Connection, lease: UUID, now: datetime, until: datetime, limit: int) -> list[Claim]:
    """Puts the `limit` deliveries that have been due for longest under `lease`, in the order of their ids.

    The transaction need not be durable when it commits, so use it for nothing else.
    """
    conn.execute(FORGETTABLE)
    rows = conn.execute(CLAIM, {"lease": lease, "now": now, "until": until, "limit": limit})
    return sorted(starmap(Claim, rows), key=lambda claimed: claimed.id)


def next_due(conn: Connection) -> datetime | None:
    """When the next delivery is due, which may be past; None when none waits."""
    due: datetime | None = conn.execute(NEXT_DUE).scalar()
    return due


def expire_leases(conn: Connection, now: datetime, limit: int) -> int:
    """Makes at most `limit` deliveries whose lease has ended due at once; returns how many."""
    return conn.execute(EXPIRE_LEASES, {"now": now, "limit": limit}).rowcount


def load_leased(conn: Connection, held: Sequence[Held]) -> Loaded:
    """Those of `held` that still are under their lease, with all that is needed to send them, in no order."""
    rows = conn.execute(LOAD_LEASED, _keys(held)).all()
    whole = [Delivery(*row) for row in rows if row.attributes is not None]
    return Loaded(whole, {row.id for row in rows if row.attributes is None})


def release(conn: Connection, held: Sequence[Held], due: datetime) -> int:
    """Hands back deliveries that were not tried, to be claimed again at `due`; returns how many were still held."""
    return _move(conn, held, "pending", due=due)


def pause(conn: Connection, held: Sequence[Held]) -> int:
    """Keeps deliveries that were not tried until their endpoint is enabled again; returns how many were still held."""
    return _move(conn, held, "paused")


def discard(conn: Connection, held: Sequence[Held], now: datetime, why: str) -> int:
    """Ends deliveries that nobody is to get any more; returns how many were still held."""
    return _move(conn, held, "discarded", settled_at=now, error=why)


def settle(conn: Connection, tried: Sequence[tuple[UUID, Settlement]], now: datetime) -> set[int]:
    """Writes each settlement whose delivery still is under the lease beside it, and its attempt; returns their ids."""
    settlements = [settlement for _lease, settlement in tried]
    moved = {
        **_keys([(settlement.delivery_id, lease) for lease, settlement in tried]),
        "states": [STATES[each.outcome] for each in settlements],
        "attempts": [each.attempt for each in settlements],
        "dues": [each.next_attempt_at for each in settlements],
        "errors": [_storable(summary(each.receipt)) for each in settlements],
        "now": now,
    }
    written = set(conn.execute(SETTLE, moved).scalars())
    copy_rows(conn, COPY_ATTEMPTS, (_attempt_row(each) for each in settlements if each.delivery_id in written))
    return written


def disable(conn: Connection, endpoint_ids: Collection[int], reason: str) -> None:
    """Disables those of the endpoints that are active; every process hears of it through the catalog."""
    active = list(conn.execute(STILL_ACTIVE, {"ids": list(endpoint_ids)}).scalars())
    if active:
        conn.execute(DISABLE, {"ids": active, "reason": reason})


def _keys(held: Iterable[Held]) -> dict[str, object]:
    ids, leases = zip(*held, strict=True)
    return {"ids": list(ids), "leases": "{" + ",".join([lease.hex for lease in leases]) + "}"}


def _move(conn: Connection, held: Sequence[Held], state: State, **values: object) -> int:
    if not held:
        return 0
    moved = {"due": None, "settled_at": None, "error": None, **values, **_keys(held), "state": state}
    return conn.execute(MOVE, moved).rowcount


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


def _attempt_row(settlement: Settlement) -> tuple[bytes | None, ...]:
    receipt = settlement.receipt
    return (
        int8(settlement.delivery_id),
        int4(settlement.attempt),
        timestamp(receipt.started_at),
        _real(receipt.duration),
        settlement.outcome.encode(),
        None if receipt.status is None else int4(receipt.status),
        _bytes(receipt.error),
        _bytes(receipt.detail),
        receipt.response or None,
    )


def _storable(value: str | None) -> str | None:
    """Text as Postgres can hold it: what an endpoint answers may end up in an error's text."""
    return value and value.replace("\x00", "\ufffd").encode(errors="replace").decode()


def _bytes(value: str | None) -> bytes | None:
    stored = _storable(value)
    return None if stored is None else stored.encode()
