"""Statements that plan, load and end deliveries. All are fenced: a worker that lost the lease writes nothing."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from struct import Struct
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Connection, Row, text

from pipeline.store.copy_binary import copy_encoded, timestamp, word
from pipeline.store.deliveries import notify, ordering
from pipeline.store.round_trip import fetched
from pipeline.store.storable_text import storable
from schemas.delivery import Delivery, Planned

COPY_DELIVERIES = """
    COPY delivery (endpoint_id, tenant, chain_id, seq, size, state, created_at, next_attempt_at, ordered)
    FROM STDIN (FORMAT binary)"""

# The lease is part of the key: a repeated broker message, or one older than its lease, finds nothing.
LOAD_LEASED = text("""
    SELECT delivery.id, endpoint_id, delivery.tenant, attempts, delivery.chain_id, delivery.seq, hash, prev_hash, attributes,
           coalesce(body, ''), uuid_send(fingerprint), created_at, schedule_from, ordered, age_from, blob, number
    FROM unnest(CAST(:ids AS bigint[]), CAST(:leases AS uuid[])) WITH ORDINALITY AS held (id, lease, number)
    JOIN delivery ON delivery.id = held.id AND delivery.lease = held.lease
    JOIN entry ON entry.chain_id = delivery.chain_id AND entry.seq = delivery.seq
    LEFT JOIN content ON content.chain_id = delivery.chain_id AND content.seq = delivery.seq""")

# Without a try: handed back to be claimed again, or ended because its content was erased or it is too old. Returns those whose
# lease still held, because their turns must be passed on.
MOVE = text("""
    UPDATE delivery SET state = :state, next_attempt_at = :due, settled_at = :settled_at, error = coalesce(:error, error),
                        lease = NULL, lease_until = NULL
    FROM unnest(CAST(:ids AS bigint[]), CAST(:leases AS uuid[])) AS held (id, lease)
    WHERE delivery.id = held.id AND delivery.lease = held.lease
    RETURNING delivery.id, endpoint_id, chain_id, ordered""")

# Runs before the UPDATE, which raises the catalog's version even when it changes no row.
STILL_ACTIVE = text("SELECT id FROM endpoint WHERE id = ANY(CAST(:ids AS int[])) AND state = 'active' FOR UPDATE")

# Its pending deliveries are set aside as they come up; new ones are planned as paused.
DISABLE = text("""
    UPDATE endpoint SET state = 'disabled', reason = :reason WHERE id = ANY(CAST(:ids AS int[])) AND state = 'active'""")

Held = tuple[int, UUID]  # a delivery's id and the lease that it is held under

State = Literal["pending", "discarded", "dead"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The deliveries that could be loaded, and the ids of those whose content was erased."""

    deliveries: Sequence[Delivery]
    erased: Collection[int]


def insert_planned(conn: Connection, planned: Sequence[Planned], now: datetime) -> set[int]:
    """Adds deliveries, due at once unless paused or waiting for their turn; returns the endpoints at which some are due.

    The caller notifies the relays of those in the same transaction.
    """
    stamp = timestamp(now)
    if planned:
        copy_encoded(conn, COPY_DELIVERIES, (_planned_row(each, stamp) for each in planned))
    return {each.endpoint_id for each in planned if each.is_due}


def load_leased(conn: Connection, held: Sequence[Held]) -> Loaded:
    """Those of `held` that are still under their lease, with everything needed to send them, in no order.

    The body of one with a `blob` is empty here: the sender fetches it.
    """
    rows = fetched(conn, LOAD_LEASED, keys_of(held))
    whole = [Delivery(*(*row[:12], held[row[16] - 1][1], *row[12:16])) for row in rows if row[8] is not None]
    return Loaded(whole, {row[0] for row in rows if row[8] is None})


def release(conn: Connection, held: Sequence[Held], due: datetime) -> int:
    """Hands back deliveries that were not tried, to be due again at `due`; returns how many were still held."""
    return len(_move(conn, held, "pending", due=due))


def end(conn: Connection, held: Sequence[Held], state: Literal["discarded", "dead"], now: datetime, why: str) -> set[int]:
    """Ends deliveries without a further try, and passes their turns on; returns the ids of those that were still held."""
    rows = _move(conn, held, state, settled_at=now, error=why)
    pass_on(conn, [(row.endpoint_id, row.chain_id) for row in rows if row.ordered], now)
    return {row.id for row in rows}


def pass_on(conn: Connection, left: Collection[ordering.Pair], now: datetime) -> None:
    """Gives the turn to the first delivery of each pair of endpoint and chain, and notifies the relays."""
    due = ordering.pass_on(conn, left, now)
    if due:
        notify.send(conn, due)


def disable(conn: Connection, endpoint_ids: Collection[int], reason: str) -> list[int]:
    """Disables those of the endpoints that are active; returns them. Other processes learn of it from the catalog."""
    active = list(conn.execute(STILL_ACTIVE, {"ids": list(endpoint_ids)}).scalars())
    if active:
        conn.execute(DISABLE, {"ids": active, "reason": storable(reason)})
    return active


def keys_of(held: Collection[Held]) -> dict[str, object]:
    """The parameters `ids` and `leases` of a statement on held deliveries, of which there may be none."""
    return {"ids": _array([str(id_) for id_, _lease in held]), "leases": _array([lease.hex for _id, lease in held])}


def _array(values: Sequence[str]) -> str:
    """An array literal of values that need no quotes: psycopg takes longer to make one than the statement takes to run."""
    return "{" + ",".join(values) + "}"


def _move(conn: Connection, held: Sequence[Held], state: State, **values: object) -> Sequence[Row[Any]]:
    if not held:
        return []
    moved = {"due": None, "settled_at": None, "error": None, **values, **keys_of(held), "state": state}
    return conn.execute(MOVE, moved).all()


#: 9 fields: endpoint_id; tenant, as a word; chain_id, seq, size; state, as a word; created_at, next_attempt_at, ordered.
_PLANNED = Struct(">hii")
_PLACE = Struct(">i16siqii")
_DUE, _NOT_DUE = Struct(">i8si8si?"), Struct(">i8sii?")


def _planned_row(planned: Planned, stamp: bytes) -> bytes:
    due = not (planned.waits or planned.state == "paused")
    return b"".join(
        (
            _PLANNED.pack(9, 4, planned.endpoint_id),
            word(planned.tenant),
            _PLACE.pack(16, planned.chain_id.bytes, 8, planned.seq, 4, planned.size),
            word(planned.state),
            _DUE.pack(8, stamp, 8, stamp, 1, planned.ordered) if due else _NOT_DUE.pack(8, stamp, -1, 1, planned.ordered),
        )
    )
