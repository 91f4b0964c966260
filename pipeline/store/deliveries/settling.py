"""Writes the verdicts on tries: the deliveries and their attempts, in one statement, fenced by the leases."""

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from struct import Struct
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.store.binary_arrays import BOOLEAN, BYTEA, INT, REAL, TEXT, TIMESTAMPTZ, array_of, bigint_array, uuid_array
from pipeline.store.copy_binary import NULL, field, timestamp, word
from pipeline.store.round_trip import Query, together
from pipeline.store.storable_text import storable
from schemas.delivery import Receipt, Settlement, summary

# Returns the ids whose lease still held: only those get an attempt and, if dead, a dead letter. One statement and not an UPDATE
# and a COPY, which takes two round trips and has to know first what the UPDATE returned.
SETTLE = text("""
    WITH settled AS (
      UPDATE delivery SET state = CASE tried.outcome WHEN 'retry' THEN 'pending' ELSE tried.outcome END, attempts = tried.n,
                          next_attempt_at = tried.due, error = tried.summary, lease = NULL, lease_until = NULL,
                          settled_at = CASE tried.outcome WHEN 'retry' THEN NULL ELSE CAST(:now AS timestamptz) END
      FROM unnest(CAST(:ids AS bigint[]), CAST(:leases AS uuid[]), CAST(:outcomes AS text[]), CAST(:ns AS int[]),
                  CAST(:dues AS timestamptz[]), CAST(:summaries AS text[]), CAST(:starts AS timestamptz[]),
                  CAST(:seconds AS real[]), CAST(:statuses AS int[]), CAST(:errors AS text[]), CAST(:details AS text[]),
                  CAST(:responses AS bytea[]), CAST(:addresses AS text[]), CAST(:reuses AS boolean[]), CAST(:dns AS real[]),
                  CAST(:connects AS real[]), CAST(:tls AS real[]), CAST(:first_bytes AS real[]))
        AS tried (id, lease, outcome, n, due, summary, started_at, seconds, status, error, detail,
                  response, address, reused, dns, connect, tls, first_byte)
      WHERE delivery.id = tried.id AND delivery.lease = tried.lease
      RETURNING delivery.id, n, started_at, seconds, outcome, status, tried.error, detail,
                response, address, reused, dns, connect, tls, first_byte),
    noted AS (
      INSERT INTO attempt (delivery_id, n, started_at, seconds, outcome, status, error, detail,
                           response, address, reused, dns, connect, tls, first_byte)
      SELECT id, n, started_at, seconds, outcome, status, error, detail,
             response, address, reused, dns, connect, tls, first_byte FROM settled)
    SELECT id FROM settled""")


def settle(conn: Connection, tried: Sequence[tuple[UUID, Settlement]], now: datetime) -> set[int]:
    """Writes each settlement whose delivery is still under the given lease, and its attempt; returns their deliveries' ids."""
    return ids(together(conn, [settle_query(tried, now)])[0])


def settle_query(tried: Sequence[tuple[UUID, Settlement]], now: datetime) -> Query:
    """The query of `settle`, for one round trip with others."""
    settlements = [settlement for _lease, settlement in tried]
    receipts = [settlement.receipt for settlement in settlements]
    return SETTLE, {
        "ids": bigint_array(each.delivery_id for each in settlements),
        "leases": uuid_array(lease.bytes for lease, _settlement in tried),
        "outcomes": array_of(TEXT, [word(each.outcome) for each in settlements]),
        "ns": array_of(INT, [_int(each.attempt) for each in settlements]),
        "dues": array_of(TIMESTAMPTZ, _each(_moment, [each.next_attempt_at for each in settlements])),
        "summaries": array_of(TEXT, _each(_text, map(summary, receipts))),
        "now": now,
        **_attempts(receipts),
    }


def ids(rows: Iterable[Sequence[Any]]) -> set[int]:
    """The ids in the rows of `settle_query`."""
    return {id_ for (id_,) in rows}


def _attempts(receipts: Collection[Receipt]) -> dict[str, object]:
    return {
        "starts": array_of(TIMESTAMPTZ, [_moment(each.started_at) for each in receipts]),
        "seconds": array_of(REAL, [_real(each.duration) for each in receipts]),
        "statuses": array_of(INT, _each(_int, [each.status for each in receipts])),
        "errors": array_of(TEXT, _each(_text, [each.error for each in receipts])),
        "details": array_of(TEXT, _each(_text, [each.detail for each in receipts])),
        "responses": array_of(BYTEA, _each(field, [each.response or None for each in receipts])),
        "addresses": array_of(TEXT, _each(_recurring, [each.address for each in receipts])),
        "reuses": array_of(BOOLEAN, _each(_BOOLEANS.__getitem__, [each.reused for each in receipts])),
        "dns": array_of(REAL, _each(_real, [each.dns for each in receipts])),
        "connects": array_of(REAL, _each(_real, [each.connect for each in receipts])),
        "tls": array_of(REAL, _each(_real, [each.tls for each in receipts])),
        "first_bytes": array_of(REAL, _each(_real, [each.first_byte for each in receipts])),
    }


def _each(encoded: Callable[[Any], bytes], values: Iterable[Any]) -> list[bytes]:
    return [NULL if value is None else encoded(value) for value in values]


_INT: Final = Struct(">ii")
_REAL: Final = Struct(">if")
_BOOLEANS: Final = (field(b"\x00"), field(b"\x01"))


def _int(value: int) -> bytes:
    return _INT.pack(4, value)


def _real(value: float) -> bytes:
    return _REAL.pack(4, value)


def _moment(value: datetime) -> bytes:
    return field(timestamp(value))


def _text(value: str) -> bytes:
    return field((storable(value) or "").encode())


_recurring = lru_cache(4096)(_text)
