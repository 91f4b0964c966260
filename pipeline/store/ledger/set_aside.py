"""Statements on the chains that ingest has set aside. A row stays when the chain is mended, with the time."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import Connection, Row, text

from pipeline.store.ledger.entries import uuids
from pipeline.store.storable_text import storable
from schemas.entry import BrokenChain

# What is there already stays as old as it is.
PUT = text("""
    INSERT INTO chain_aside AS known (key, tenant, chain_id, fault, since)
    VALUES (CAST(:key AS uuid), :tenant, :chain_id, :fault, :now)
    ON CONFLICT (key) DO UPDATE SET chain_id = excluded.chain_id, fault = excluded.fault, mended_at = NULL,
      since = CASE WHEN known.mended_at IS NULL THEN known.since ELSE excluded.since END""")

MEND = text("""
    UPDATE chain_aside SET mended_at = :now WHERE key = ANY(CAST(:keys AS uuid[])) AND mended_at IS NULL""")

# Without the subject, which is a copy that nobody would think of when it is erased; nor from `chain`, which may be unreadable.
OPEN = text("""
    SELECT uuid_send(key) AS key, tenant, chain_id, fault, since FROM chain_aside
    WHERE mended_at IS NULL ORDER BY since, key LIMIT :most""")


def put(conn: Connection, key: bytes, chain: BrokenChain, now: datetime) -> None:
    """Keeps that a chain is set aside, and why."""
    asked = {"tenant": chain.tenant, "chain_id": chain.chain_id, "fault": storable(chain.fault), "now": now}
    conn.execute(PUT, {"key": key.hex(), **asked})


def mend(conn: Connection, keys: Collection[bytes], now: datetime) -> None:
    """Keeps that chains are whole again."""
    conn.execute(MEND, {"keys": uuids(keys), "now": now})


def still_aside(conn: Connection, most: int) -> Sequence[Row]:  # type: ignore[type-arg]
    """The chains that were set aside and have not been found whole since, the longest first; `most` at most."""
    return conn.execute(OPEN, {"most": most}).all()
