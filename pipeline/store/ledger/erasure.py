"""Statements that erase content, in the transaction that appends the erasure entry, and that count what would be erased."""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.store.array_literals import plain
from schemas.ledger.erasure import Counted, ErasableChain, Erased, ErasedBlob

CHAIN = text("""
    SELECT uuid_send(key) AS key, tenant, chain_id, subject, seq FROM chain WHERE chain_id = CAST(:chain_id AS uuid)""")

CHAINS = text("""
    SELECT uuid_send(key) AS key, tenant, chain_id, subject, seq FROM chain WHERE chain_id = ANY(CAST(:chains AS uuid[]))
    ORDER BY key""")

# One eraser of a chain at a time, so that no two list the same entries; in one order, so that none waits in a circle.
SERIALISE = text("""
    SELECT pg_advisory_xact_lock(hashtextextended('waxseal erases ' || chain, 0))
    FROM (SELECT chain FROM unnest(CAST(:chains AS text[])) AS chain ORDER BY chain) AS chains""")

# From the end of the last batch, in the order of an index. What Waxseal appended itself, erasures and proofs, is never erased.
NEXT = text("""
    SELECT seq FROM content JOIN entry USING (chain_id, seq)
    WHERE chain_id = CAST(:chain_id AS uuid) AND seq > :after AND seq <= :last AND kind = 'event'
      AND (CAST(:only AS bigint[]) IS NULL OR seq = ANY(CAST(:only AS bigint[])))
    ORDER BY seq LIMIT :limit""")

LOCK = text("SELECT lock_for_erasure(CAST(:chains AS uuid[]), CAST(:seqs AS bigint[]))")

ERASE = text("SELECT erase_content(CAST(:chain_id AS uuid), :seq)")

ERASURES = text("""
    SELECT entry.seq, entry.at, content.body FROM entry JOIN content USING (chain_id, seq)
    WHERE entry.chain_id = CAST(:chain_id AS uuid) AND entry.kind = 'erasure' ORDER BY entry.seq""")

# In one snapshot. What has no content was erased before, or is missing, which `verify` tells apart.
COUNT = text("""
    SELECT count(*) FILTER (WHERE kind = 'event') AS events,
           count(*) FILTER (WHERE kind <> 'event') AS own,
           count(*) FILTER (WHERE kind = 'event' AND content.seq IS NULL) AS gone,
           coalesce(sum(octet_length(attributes) + coalesce(octet_length(body), 0)) FILTER (WHERE kind = 'event'), 0) AS bytes,
           count(DISTINCT blob) FILTER (WHERE kind = 'event') AS blobs,
           max(entry.seq) FILTER (WHERE kind = 'event') AS last
    FROM entry LEFT JOIN content USING (chain_id, seq)
    WHERE entry.chain_id = CAST(:chain_id AS uuid) AND entry.seq <= :last
      AND (CAST(:only AS bigint[]) IS NULL OR entry.seq = ANY(CAST(:only AS bigint[])))""")

COUNT_DELIVERIES = text("""
    SELECT delivery.state, count(*) FROM content JOIN entry USING (chain_id, seq) JOIN delivery USING (chain_id, seq)
    WHERE chain_id = CAST(:chain_id AS uuid) AND seq <= :last AND kind = 'event'
      AND (CAST(:only AS bigint[]) IS NULL OR seq = ANY(CAST(:only AS bigint[])))
    GROUP BY 1""")

COUNT_DOCUMENTS = text("""
    SELECT count(*) FROM mail_document
    WHERE chain_id = CAST(:chain_id AS uuid) AND seq <= :last
      AND (CAST(:only AS bigint[]) IS NULL OR seq = ANY(CAST(:only AS bigint[])))""")

KINDS = text("""
    SELECT seq, kind FROM entry WHERE chain_id = CAST(:chain_id AS uuid) AND seq = ANY(CAST(:only AS bigint[]))""")

ERASED_BLOBS = text("""
    SELECT tenant, reference, erased_at FROM erased_blob WHERE (tenant, reference) > (:tenant, :reference)
    ORDER BY tenant, reference LIMIT :limit""")

# Unless another erasure has named it since.
FORGET_BLOB = text("DELETE FROM erased_blob WHERE tenant = :tenant AND reference = :reference AND erased_at = :erased_at")


def chain(conn: Connection, chain_id: UUID) -> ErasableChain | None:
    """The chain of that id."""
    row = conn.execute(CHAIN, {"chain_id": chain_id}).one_or_none()
    return None if row is None else ErasableChain(*row)


def chains(conn: Connection, ids: Sequence[UUID]) -> list[ErasableChain]:
    """The chains with those ids, in the order in which their heads are locked."""
    return [ErasableChain(*row) for row in conn.execute(CHAINS, {"chains": plain(ids)})]


def serialise(conn: Connection, ids: Sequence[UUID]) -> None:
    """Waits until no other transaction erases from these chains, and keeps others waiting until this one ends."""
    conn.execute(SERIALISE, {"chains": [each.hex for each in ids]})


def erasable(
    conn: Connection, chain_id: UUID, after: int, last: int, limit: int, only: Sequence[int] | None = None
) -> list[int]:
    """The numbers of at most `limit` events after `after` and up to `last` that have content; of those in `only`, if given."""
    asked = {"chain_id": chain_id, "after": after, "last": last, "limit": limit, "only": None if only is None else list(only)}
    return list(conn.execute(NEXT, asked).scalars())


def lock(conn: Connection, listed: Sequence[tuple[UUID, int]]) -> None:
    """Locks what refers to these entries. Call it before any head is locked."""
    if listed:
        ids, seqs = zip(*listed, strict=True)
        conn.execute(LOCK, {"chains": plain(ids), "seqs": plain(seqs)})


def erase(conn: Connection, chain_id: UUID, seq: int) -> Erased:
    """Deletes what the erasure entry `seq`, appended in this transaction, lists. Raises SQLAlchemy's errors for any other."""
    return Erased(**conn.execute(ERASE, {"chain_id": chain_id, "seq": seq}).scalar_one())


def erasures(conn: Connection, chain_id: UUID) -> Iterator[tuple[int, int, bytes]]:
    """The chain's erasure entries: number, time in microseconds, and body."""
    for seq, at, body in conn.execute(ERASURES, {"chain_id": chain_id}):
        yield seq, at, bytes(body)


def count(conn: Connection, chain_id: UUID, last: int, only: Sequence[int] | None = None) -> Counted:
    """What erasing would take, in one snapshot if the transaction has one."""
    asked = {"chain_id": chain_id, "last": last, "only": None if only is None else list(only)}
    row: Any = conn.execute(COUNT, asked).mappings().one()
    deliveries = {state: int(number) for state, number in conn.execute(COUNT_DELIVERIES, asked)}
    documents = int(conn.execute(COUNT_DOCUMENTS, asked).scalar_one())
    numbers = {name: int(row[name]) for name in ("events", "own", "gone", "bytes", "blobs")}
    return Counted(**numbers, documents=documents, deliveries=deliveries, last=-1 if row["last"] is None else row["last"])


def kinds(conn: Connection, chain_id: UUID, only: Sequence[int]) -> dict[int, str]:
    """The kinds of those of the entries `only` that exist, by number."""
    rows = conn.execute(KINDS, {"chain_id": chain_id, "only": list(only)})
    return {row.seq: row.kind for row in rows}


def erased_blobs(conn: Connection, after: tuple[str, str], limit: int) -> list[ErasedBlob]:
    """The next blobs of erased content after that tenant and reference."""
    asked = {"tenant": after[0], "reference": after[1], "limit": limit}
    return [ErasedBlob(*row) for row in conn.execute(ERASED_BLOBS, asked)]


def forget_blob(conn: Connection, blob: ErasedBlob) -> None:
    """Forgets a blob that is deleted, or that something refers to; not if it was erased again since."""
    conn.execute(FORGET_BLOB, {"tenant": blob.tenant, "reference": blob.reference, "erased_at": blob.erased_at})
