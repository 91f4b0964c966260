"""Inserts entries with content and deliveries in one round trip; COPY, cheaper for many, takes two for each table."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

from pipeline.formats.cloudevents import instant
from pipeline.store.array_literals import plain
from pipeline.store.binary_arrays import BYTEA, TEXT, TIMESTAMPTZ, BinaryArray, array_of, bigint_array, hash_array, uuid_array
from pipeline.store.copy_binary import NULL, field, timestamp, word
from pipeline.store.deliveries import notify
from pipeline.store.ledger import entries as ledger_entries
from pipeline.store.round_trip import Query, together
from schemas.delivery import Planned
from schemas.entry import Entry, ends
from schemas.event import Event

MOST: Final = 128  # entries; above about this number, COPY takes less CPU
MOST_BYTES: Final = 1 << 20  # of bodies, because this copies them all
SAVED: Final = 6  # round trips, by not using COPY
COST: Final = 20e-6  # seconds that an entry above `MOST` takes longer than by COPY
MOST_BYTES_FAR: Final = 16 << 20  # of bodies, where that saves time

# The columns and their order are those of the COPY statements in `entries` and `deliveries`.
INSERT_ENTRIES = text("""
    INSERT INTO entry (chain_id, seq, prev_hash, hash, tenant, at, kind, pc, fingerprint)
    SELECT * FROM unnest(CAST(:chains AS uuid[]), CAST(:seqs AS bigint[]), CAST(:prevs AS bytea[]), CAST(:hashes AS bytea[]),
                         CAST(:tenants AS text[]), CAST(:ats AS bigint[]), CAST(:kinds AS text[]), CAST(:pcs AS bytea[]),
                         CAST(:fingerprints AS uuid[]))""")

INSERT_CONTENT = text("""
    INSERT INTO content (chain_id, seq, attributes, body, blob, salt, source, type, subject, time)
    SELECT * FROM unnest(CAST(:chains AS uuid[]), CAST(:seqs AS bigint[]), CAST(:attributes AS bytea[]),
                         CAST(:bodies AS bytea[]), CAST(:blobs AS text[]), CAST(:salts AS bytea[]), CAST(:sources AS text[]),
                         CAST(:types AS text[]), CAST(:subjects AS text[]), CAST(:times AS timestamptz[]))""")

INSERT_DELIVERIES = text("""
    INSERT INTO delivery (endpoint_id, tenant, chain_id, seq, size, state, created_at, next_attempt_at, ordered)
    SELECT endpoint_id, tenant, chain_id, seq, size, state, :now, CASE WHEN due THEN CAST(:now AS timestamptz) END, ordered
    FROM unnest(CAST(:endpoints AS int[]), CAST(:tenants AS text[]), CAST(:chains AS uuid[]), CAST(:seqs AS bigint[]),
                CAST(:sizes AS int[]), CAST(:states AS text[]), CAST(:dues AS boolean[]), CAST(:ordereds AS boolean[]))
      AS planned (endpoint_id, tenant, chain_id, seq, size, state, due, ordered)""")


def suits(events: Sequence[Event], round_trip: float = 0.0) -> bool:
    """Whether the events are few and small enough for `insert`, with Postgres that many seconds away."""
    most = max(MOST, round_trip * SAVED / COST)
    bytes_ = MOST_BYTES_FAR if most > MOST else MOST_BYTES
    return len(events) <= most and sum(len(event.body) for event in events if not event.blob) <= bytes_


def insert(conn: Connection, entries: Sequence[Entry], planned: Sequence[Planned], now: datetime) -> None:
    """Adds entries, their content and their deliveries, and moves the heads; the COMMIT notifies the relays."""
    asked = [_entries(entries), _content(entries), ledger_entries.move_heads_query(ends(entries))]
    if planned:
        asked.append(_deliveries(planned, now))
    due = {each.endpoint_id for each in planned if each.is_due}
    if due:
        asked.append(notify.notify_query(due))
    together(conn, asked)


def _entries(entries: Sequence[Entry]) -> Query:
    return INSERT_ENTRIES, {
        **_places(entries),
        "prevs": array_of(BYTEA, [_octets(each.prev_hash) for each in entries]),
        "hashes": hash_array(each.hash for each in entries),
        "tenants": array_of(TEXT, [word(each.event.tenant) for each in entries]),
        "ats": bigint_array(each.at for each in entries),
        "kinds": array_of(TEXT, [word(each.kind) for each in entries]),
        "pcs": array_of(BYTEA, [_octets(each.pc) for each in entries]),
        "fingerprints": uuid_array(each.event.fingerprint for each in entries),
    }


def _content(entries: Sequence[Entry]) -> Query:
    events = [each.event for each in entries]
    attributes = [event.attributes for event in events]
    return INSERT_CONTENT, {
        **_places(entries),
        "attributes": array_of(BYTEA, [field(each.attributes) for each in entries]),
        "bodies": array_of(BYTEA, [NULL if event.blob else field(event.body) for event in events]),
        "blobs": array_of(TEXT, [field(event.blob.encode()) if event.blob else NULL for event in events]),
        "salts": array_of(BYTEA, [_octets(each.salt) for each in entries]),
        "sources": array_of(TEXT, [word(each["source"]) for each in attributes]),
        "types": array_of(TEXT, [field(each["type"].encode()) for each in attributes]),
        "subjects": array_of(TEXT, [field(each["subject"].encode()) for each in attributes]),
        "times": array_of(TIMESTAMPTZ, [_moment(event) for event in events]),
    }


def _deliveries(planned: Sequence[Planned], now: datetime) -> Query:
    return INSERT_DELIVERIES, {
        **_places(planned),
        "endpoints": plain([each.endpoint_id for each in planned]),
        "tenants": array_of(TEXT, [word(each.tenant) for each in planned]),
        "sizes": plain([each.size for each in planned]),
        "states": array_of(TEXT, [word(each.state) for each in planned]),
        "dues": plain([each.is_due for each in planned]),
        "ordereds": plain([each.ordered for each in planned]),
        "now": now,
    }


def _places(each_of: Sequence[Entry] | Sequence[Planned]) -> dict[str, BinaryArray]:
    return {"chains": uuid_array(each.chain_id.bytes for each in each_of), "seqs": bigint_array(each.seq for each in each_of)}


def _octets(value: bytes | None) -> bytes:
    return NULL if value is None else field(value)


def _moment(event: Event) -> bytes:
    return field(timestamp(event.moment or instant(event.attributes["time"])))
