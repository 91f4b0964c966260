"""Statements that find where every chain of a tenant ended within the first leaves of its log."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, text

# The last entry of the chain of heads, with what it says; its body is in the row, because it is small.
LAST = text("""
    SELECT entry.at, body FROM chain JOIN entry ON entry.chain_id = chain.chain_id AND entry.seq = chain.seq
    LEFT JOIN content ON content.chain_id = entry.chain_id AND content.seq = entry.seq WHERE key = :key""")

ALONE = text("SELECT pg_try_advisory_xact_lock(hashtextextended('waxseal heads ' || :tenant, 0))")

# By the index of chain ids, and for each chain by that of its leaves, from its end, past those that came since.
MEMBERS = text("""
    SELECT chain.chain_id, ending.seq, entry.hash FROM chain
    CROSS JOIN LATERAL (
      SELECT seq FROM leaf WHERE leaf.chain_id = chain.chain_id AND log_id = :log AND position < :size ORDER BY seq DESC LIMIT 1
    ) AS ending
    JOIN entry ON entry.chain_id = chain.chain_id AND entry.seq = ending.seq
    WHERE chain.tenant = :tenant AND chain.chain_id > :after ORDER BY chain.chain_id LIMIT :most""")


@dataclass(frozen=True, slots=True)
class LastHeads:
    """The last heads entry: when it was recorded, in microseconds UTC, and its body, None if that is lost."""

    at: int
    body: bytes | None


def last(conn: Connection, key: bytes) -> LastHeads | None:
    """The last entry of the chain with this key."""
    row = conn.execute(LAST, {"key": UUID(bytes=key)}).one_or_none()
    return None if row is None else LastHeads(row[0], None if row[1] is None else bytes(row[1]))


def alone(conn: Connection, tenant: str) -> bool:
    """Whether no other transaction writes heads of the tenant; then none does until this one ends."""
    return bool(conn.execute(ALONE, {"tenant": tenant}).scalar_one())


def members(conn: Connection, log_id: int, tenant: str, size: int, after: UUID, most: int) -> Sequence[tuple[UUID, int, bytes]]:
    """The next chains by their ids: each with its last entry's number and hash among the log's first `size` leaves."""
    asked = {"log": log_id, "tenant": tenant, "size": size, "after": after, "most": most}
    return [(chain, seq, bytes(hash_)) for chain, seq, hash_ in conn.execute(MEMBERS, asked)]
