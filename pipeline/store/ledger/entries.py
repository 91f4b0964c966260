"""Statements that append entries and content to chains, and look them up."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from struct import Struct
from typing import Any

import orjson
from sqlalchemy import Connection, Row, text

from pipeline.formats.cloudevents import instant
from pipeline.store.array_literals import quoted
from pipeline.store.binary_arrays import bigint_array, hash_array, uuid_array
from pipeline.store.copy_binary import NULL, copy_encoded, field, microseconds, word
from pipeline.store.round_trip import Query, together
from schemas.entry import BrokenChain, Entry, Head
from schemas.event import Content

# One look-up for the whole batch; with one key column, the planner has only one index to choose.
KNOWN_FINGERPRINTS = text("SELECT uuid_send(fingerprint) FROM entry WHERE fingerprint = ANY(CAST(:keys AS uuid[]))")

# For duplicates only; their bodies stay in the database. Erased content is NULL.
RECORDED = text("""
    SELECT uuid_send(fingerprint) AS fingerprint, attributes, blob, digest FROM entry
    LEFT JOIN LATERAL (SELECT attributes, blob, sha256(body) AS digest FROM content
                       WHERE content.chain_id = entry.chain_id AND content.seq = entry.seq LIMIT 1) AS found ON true
    WHERE fingerprint = ANY(CAST(:keys AS uuid[]))""")

# Without locks: new chains must be created before any head is locked, or two batches could deadlock.
KNOWN_CHAINS = text("SELECT uuid_send(key) FROM chain WHERE key = ANY(CAST(:keys AS uuid[]))")

# Sorted, so that two batches that create the same chains cannot deadlock. The second one finds them created.
MAKE_CHAINS = text("""
    INSERT INTO chain (key, tenant, subject, chain_id)
    SELECT * FROM unnest(CAST(:keys AS uuid[]), CAST(:tenants AS text[]), CAST(:subjects AS text[]),
                         CAST(:chain_ids AS uuid[])) AS made (key, tenant, subject, chain_id)
    ORDER BY key ON CONFLICT (key) DO NOTHING""")

# Locks in key order, so that no two batches deadlock. No second writer reads these heads before this transaction ends.
LOCK_HEADS = text("""
    SELECT uuid_send(key), chain_id, seq, hash FROM chain WHERE key = ANY(CAST(:keys AS uuid[])) ORDER BY key FOR UPDATE""")

# The heads are locked, so each still is as it was read.
MOVE_HEADS = text("""
    UPDATE chain SET seq = moved.seq, hash = moved.hash
    FROM unnest(CAST(:keys AS uuid[]), CAST(:seqs AS bigint[]), CAST(:hashes AS bytea[])) AS moved (key, seq, hash)
    WHERE chain.key = moved.key""")

# In one snapshot, so that concurrent appends do not look like faults. Reads the index of each chain's entries from its end.
BROKEN_CHAINS = text("""
    SELECT uuid_send(key) AS key, tenant, subject, chain.chain_id, chain.seq AS head, last.seq AS last
    FROM chain LEFT JOIN LATERAL
      (SELECT seq, hash FROM entry WHERE entry.chain_id = chain.chain_id ORDER BY seq DESC LIMIT 1) AS last ON true
    WHERE key = ANY(CAST(:keys AS uuid[]))
      AND (chain.seq <> coalesce(last.seq, -1) OR chain.hash IS DISTINCT FROM last.hash
           OR EXISTS (SELECT FROM content WHERE content.chain_id = chain.chain_id AND content.seq > chain.seq)
           OR EXISTS (SELECT FROM delivery WHERE delivery.chain_id = chain.chain_id AND delivery.seq > chain.seq))""")

# A small table, or its index, is read whole, and then one damaged page in it concerns every chain. What is off counts as very
# expensive where there is no other way, and would be compiled first.
BY_INDEX = text("""
    SELECT set_config(name, 'off', true)
    FROM unnest(ARRAY['enable_seqscan', 'enable_hashjoin', 'enable_mergejoin', 'jit']) AS name""")

# Changes nothing, and is written to the log of Postgres: COMMIT waits until that is durable, with all that was written before.
WRITE_NOTHING = text("SELECT pg_logical_emit_message(true, 'waxseal', '')")

# Reads one small row for each chain, instead of every entry.
COUNT_BY_HEADS = text("SELECT coalesce(sum(seq + 1), 0) FROM chain")

COPY_ENTRIES = "COPY entry (chain_id, seq, prev_hash, hash, tenant, at, kind, pc, fingerprint) FROM STDIN (FORMAT binary)"
COPY_CONTENT = """
    COPY content (chain_id, seq, attributes, body, blob, salt, source, type, subject, time) FROM STDIN (FORMAT binary)"""


def uuids(keys: Iterable[bytes]) -> str:
    """16-byte keys as a uuid[] literal: ten times faster than as UUID objects."""
    return "{" + ",".join([key.hex() for key in keys]) + "}"


def commit_durably(conn: Connection) -> None:
    """Let COMMIT wait until what this transaction has read is durable, on the standbys too, though it writes nothing."""
    conn.execute(WRITE_NOTHING)


def known_fingerprints(conn: Connection, fingerprints: Collection[bytes]) -> set[bytes]:
    """Those of `fingerprints` that are in the ledger, as visible to this transaction."""
    return set(conn.execute(KNOWN_FINGERPRINTS, {"keys": uuids(fingerprints)}).scalars())


def recorded(conn: Connection, fingerprints: Collection[bytes]) -> dict[bytes, Content | None]:
    """The content recorded under those of `fingerprints` that are in the ledger; None where it was erased."""
    rows = conn.execute(RECORDED, {"keys": uuids(fingerprints)})
    return {row.fingerprint: None if row.attributes is None else _content(row) for row in rows}


def _content(row: Row[Any]) -> Content:
    attributes = orjson.loads(row.attributes)
    body = bytes.fromhex(row.blob.partition(":")[2]) if row.blob else row.digest
    return Content(body, attributes["type"], attributes["subject"], attributes.get("origin"))


def read_by_index(conn: Connection) -> None:
    """Makes this transaction read, as far as possible, only the pages that hold what it looks up."""
    conn.execute(BY_INDEX)


def broken_chains(conn: Connection, keys: Collection[bytes]) -> dict[bytes, BrokenChain]:
    """The chains with these keys whose head is not their last entry, or that have content or deliveries beyond it."""
    rows = conn.execute(BROKEN_CHAINS, {"keys": uuids(keys)})
    return {row.key: BrokenChain(row.tenant, row.subject, row.chain_id, _fault(row.head, row.last)) for row in rows}


def _fault(head: int, last: int | None) -> str:
    if head != (-1 if last is None else last):
        return f"the chain's head is at {head}, {'and it has no entries' if last is None else f'its last entry at {last}'}"
    return "the chain's head is not its last entry, or there is content or a delivery behind it"


def make_chains(conn: Connection, subjects: Mapping[bytes, tuple[str, str]], random: bytes) -> None:
    """Makes sure that a chain exists for every key of `subjects` (key -> tenant, subject).

    `random` holds 16 fresh bytes for each. Call it before the transaction locks any head.
    """
    known = set(conn.execute(KNOWN_CHAINS, {"keys": uuids(subjects)}).scalars())
    missing = {key: subject for key, subject in subjects.items() if key not in known}
    if missing:
        conn.execute(*_make_chains_query(missing, random))


def lock_heads(
    conn: Connection, keys: Collection[bytes], missing: Mapping[bytes, tuple[str, str]] | None = None, random: bytes = b""
) -> dict[bytes, Head]:
    """The heads of the chains `keys`, locked until the transaction ends. Creates the `missing` chains first.

    `random` holds 16 fresh bytes for each of those.
    """
    asked = [_make_chains_query(missing, random)] if missing else []
    return heads(together(conn, [*asked, heads_query(keys)])[-1])


def heads_query(keys: Collection[bytes]) -> Query:
    """The query whose rows `heads` reads; locks the heads."""
    return LOCK_HEADS, {"keys": uuid_array(keys)}


def heads(rows: Iterable[Sequence[Any]]) -> dict[bytes, Head]:
    """The heads in the rows of `heads_query`, by chain key."""
    return {key: Head(chain_id, seq, hash_) for key, chain_id, seq, hash_ in rows}


def fingerprints_query(fingerprints: Collection[bytes]) -> Query:
    """The query for those of `fingerprints` that are in the ledger."""
    return KNOWN_FINGERPRINTS, {"keys": uuid_array(fingerprints)}


def chains_query(keys: Collection[bytes]) -> Query:
    """The query for those of the chains `keys` that exist, without locking them."""
    return KNOWN_CHAINS, {"keys": uuid_array(keys)}


def move_heads_query(moved: Mapping[bytes, Head]) -> Query:
    """The statement that writes the new heads of chains whose heads this transaction has locked."""
    ends = moved.values()
    seqs, hashes = bigint_array(head.seq for head in ends), hash_array(head.hash or b"" for head in ends)
    return MOVE_HEADS, {"keys": uuid_array(moved), "seqs": seqs, "hashes": hashes}


def _make_chains_query(missing: Mapping[bytes, tuple[str, str]], random: bytes) -> Query:
    return MAKE_CHAINS, {
        "keys": uuids(missing),
        "tenants": quoted([tenant for tenant, _ in missing.values()]),
        "subjects": quoted([subject for _, subject in missing.values()]),
        "chain_ids": uuids(random[16 * n : 16 * n + 16] for n in range(len(missing))),
    }


def insert_entries(conn: Connection, entries: Iterable[Entry]) -> list[Entry]:
    """Adds entries and their content; returns them. Postgres checks each hash, link and number, and refuses a fork.

    If `entries` is a generator, later entries are made while Postgres processes earlier ones.
    """
    inserted: list[Entry] = []
    copy_encoded(conn, COPY_ENTRIES, _entry_rows(entries, inserted))
    copy_encoded(conn, COPY_CONTENT, map(_content_row, inserted))
    return inserted


def _entry_rows(entries: Iterable[Entry], taken: list[Entry]) -> Iterator[bytes]:
    for entry in entries:
        taken.append(entry)
        yield _entry_row(entry)


# Each row is packed in few calls, because this is most of the computation while heads are locked.
_FIRST_ENTRY = Struct(">hi16siqii32s")  # 9 fields: chain_id, seq, no prev_hash, hash
_NEXT_ENTRY = Struct(">hi16siqi32si32s")
_AT = Struct(">iq")
_REST = Struct(">i32si16s")  # pc, fingerprint
_CONTENT = Struct(">hi16siqi")  # 10 fields: chain_id, seq, the length of the attributes
_SALT = Struct(">i32s")
_MOMENT = Struct(">iq")


def _entry_row(entry: Entry) -> bytes:
    if entry.prev_hash is None:
        head = _FIRST_ENTRY.pack(9, 16, entry.chain_id.bytes, 8, entry.seq, -1, 32, entry.hash)
    else:
        head = _NEXT_ENTRY.pack(9, 16, entry.chain_id.bytes, 8, entry.seq, 32, entry.prev_hash, 32, entry.hash)
    event = entry.event
    rest = _REST.pack(32, entry.pc, 16, event.fingerprint)
    return b"".join((head, word(event.tenant), _AT.pack(8, entry.at), word(entry.kind), rest))


def _content_row(entry: Entry) -> bytes:
    event, attributes = entry.event, entry.event.attributes
    subject = attributes["subject"]
    return b"".join(
        (
            _CONTENT.pack(10, 16, entry.chain_id.bytes, 8, entry.seq, len(entry.attributes)),
            entry.attributes,
            NULL if event.blob else field(event.body),
            field(event.blob.encode()) if event.blob else NULL,
            _SALT.pack(32, entry.salt),
            word(attributes["source"]),
            field(attributes["type"].encode()),
            field(subject.encode()),
            _MOMENT.pack(8, microseconds(event.moment or instant(attributes["time"]))),
        )
    )


def count_by_heads(conn: Connection) -> int:
    """The number of entries according to the heads."""
    return int(conn.execute(COUNT_BY_HEADS).scalar_one())
