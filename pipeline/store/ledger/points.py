"""Statements about verified points: where each chain ended when it was last verified."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

from pipeline.store.ledger import scan
from pipeline.store.ledger.scan import Scope
from schemas.ledger.fault import FaultKind
from schemas.ledger.ledger_rows import StoredChain

# A chain in which a fault was found is new from its beginning, until none is found any more; one whose subject's name is gone,
# because of the entry that erased it.
_NEW = """
    SELECT chain.*, CASE WHEN broken OR subject IS NULL THEN -1 ELSE coalesce(point.seq, -1) END AS from_seq,
           CASE WHEN NOT broken AND subject IS NOT NULL THEN point.hash END AS from_hash
    FROM chain LEFT JOIN verified_point AS point ON point.chain_id = chain.chain_id
    WHERE point.chain_id IS NULL OR broken OR point.seq IS DISTINCT FROM chain.seq OR point.hash IS DISTINCT FROM chain.hash"""
NEW_CHAINS = f"""
    SELECT uuid_send(key), tenant, subject, uuid_send(chain_id), seq, hash, from_seq, from_hash
    FROM ({_NEW}) AS new ORDER BY chain_id"""  # noqa: S608 - constants
AFTER_POINT: Final = f"SELECT chain_id, from_seq FROM ({_NEW}) AS new"  # noqa: S608 - constants

# What was there when it was verified, and is not any more. A look-up for each point, and no pass over all entries; if the entry
# is there twice, the one that differs.
BROKEN_POINTS = """
    SELECT uuid_send(point.chain_id), point.tenant, chain.subject, point.seq, entry.hash IS NULL, point.verified_at
    FROM verified_point AS point LEFT JOIN chain ON chain.chain_id = point.chain_id
      LEFT JOIN LATERAL (SELECT hash FROM entry WHERE entry.chain_id = point.chain_id AND entry.seq = point.seq
                         ORDER BY entry.hash = point.hash LIMIT 1) AS entry ON true
    {where} AND point.seq >= 0 AND entry.hash IS DISTINCT FROM point.hash"""

KEEP = text("""
    INSERT INTO verified_point (chain_id, tenant, seq, hash, verified_at, broken)
    SELECT chain_id, tenant, seq, hash, :now, broken
    FROM unnest(CAST(:chains AS uuid[]), CAST(:tenants AS text[]), CAST(:seqs AS bigint[]), CAST(:hashes AS bytea[]),
                CAST(:broken AS boolean[])) AS reached (chain_id, tenant, seq, hash, broken)
    ORDER BY chain_id
    ON CONFLICT (chain_id) DO UPDATE SET
      seq = CASE WHEN excluded.broken THEN verified_point.seq ELSE excluded.seq END,
      hash = CASE WHEN excluded.broken THEN verified_point.hash ELSE excluded.hash END,
      verified_at = excluded.verified_at, broken = excluded.broken
    WHERE excluded.seq >= verified_point.seq OR excluded.broken""")

COVERED = text("SELECT count(*), coalesce(sum(seq + 1), 0) FROM verified_point WHERE NOT broken")


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a chain was verified. If a fault was found in it, `broken`, and then its point stays where it was."""

    chain_id: bytes
    tenant: str
    seq: int
    hash: bytes | None
    broken: bool


@dataclass(frozen=True, slots=True)
class BrokenPoint:
    """A point whose entry is not there any more, or is another one."""

    kind: FaultKind
    chain_id: bytes
    tenant: str
    subject: str | None
    seq: int
    detail: str


def new_chains(conn: Connection) -> Iterator[tuple[StoredChain, int, bytes | None]]:
    """The rows of chains that have moved since they were verified, and the number and hash that they were verified to."""
    for row in scan.stream(conn, "chains", NEW_CHAINS, Scope()):
        yield StoredChain._make(row[:6]), row[6], row[7]


def broken_points(conn: Connection, scope: Scope) -> Iterator[BrokenPoint]:
    """Points within the scope that the ledger contradicts."""
    for row in scan.stream(conn, "points", BROKEN_POINTS.format(where=scope.where("point")), scope):
        chain_id, tenant, subject, seq, gone, at = row
        when = f"when it was verified at {at:%Y-%m-%dT%H:%M:%SZ}"
        if gone:
            yield BrokenPoint("shortened", chain_id, tenant, subject, seq, f"the chain went on to entry {seq} {when}")
        else:
            yield BrokenPoint("rewritten", chain_id, tenant, subject, seq, f"the entry was another one {when}")


def keep(conn: Connection, reached: Sequence[Reached], now: datetime) -> None:
    """Records how far chains were verified. A point never moves back."""
    told = {
        "chains": [each.chain_id.hex() for each in reached],
        "tenants": [each.tenant for each in reached],
        "seqs": [each.seq if not each.broken else -1 for each in reached],
        "hashes": [each.hash if not each.broken else None for each in reached],
        "broken": [each.broken for each in reached],
    }
    conn.execute(KEEP, {**told, "now": now})


def covered(conn: Connection) -> tuple[int, int]:
    """The numbers of chains and of entries up to the points of chains without faults."""
    chains, entries = conn.execute(COVERED).one()
    return int(chains), int(entries)
