"""Statements that find where entries are in their tenant's log. What is there is read from the published files."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.store.ledger.scan import ENTRIES
from schemas.ledger.ledger_rows import StoredEntry

NEWEST_LOG = text("SELECT id, incarnation FROM log WHERE tenant = :tenant ORDER BY incarnation DESC LIMIT 1")

POSITION = text("""
    SELECT position FROM leaf WHERE log_id = :log AND chain_id = :chain_id AND seq = :seq""")

LAST_BEFORE = text("""
    SELECT seq, position FROM leaf WHERE log_id = :log AND chain_id = :chain_id AND position < :size
    ORDER BY seq DESC LIMIT 1""")

ENDS = text("""
    SELECT DISTINCT ON (chain_id) uuid_send(chain_id), seq, position FROM leaf
    WHERE log_id = :log AND position < :size ORDER BY chain_id, seq DESC""")

AT = text("""
    SELECT uuid_send(chain_id), seq, position FROM leaf
    WHERE log_id = :log AND position = ANY (CAST(:positions AS bigint[])) ORDER BY position""")

SIGNED = text("SELECT note FROM checkpoint WHERE log_id = :log AND size = :size")

SIZES = text("SELECT size FROM checkpoint WHERE log_id = :log AND size <= :size ORDER BY size DESC LIMIT :most")

NEAREST = text("SELECT size FROM checkpoint WHERE log_id = :log ORDER BY abs(size - :size) LIMIT 3")

ENTRY = text(
    ENTRIES.format(inline=2**30, beside="", where="WHERE entry.chain_id = CAST(:chain_id AS uuid) AND entry.seq = :seq")
)

FETCH: Final = 500  # rows in memory at once


class Leaf(NamedTuple):
    """An entry's place in a log."""

    chain: bytes
    seq: int
    position: int


def newest_log(conn: Connection, tenant: str) -> tuple[int, int] | None:
    """The id and the incarnation of the tenant's newest log; None if it has none."""
    row = conn.execute(NEWEST_LOG, {"tenant": tenant}).one_or_none()
    return None if row is None else (row[0], row[1])


def position(conn: Connection, log_id: int, chain_id: UUID, seq: int) -> int | None:
    """Where an entry is; None if it has no position yet."""
    return conn.execute(POSITION, {"log": log_id, "chain_id": chain_id, "seq": seq}).scalar()


def last_before(conn: Connection, log_id: int, chain_id: UUID, size: int) -> Leaf | None:
    """The last entry of a chain among the first `size` leaves."""
    row = conn.execute(LAST_BEFORE, {"log": log_id, "chain_id": chain_id, "size": size}).one_or_none()
    return None if row is None else Leaf(chain_id.bytes, *row)


def ends(conn: Connection, log_id: int, size: int) -> Iterator[Leaf]:
    """The last entry of every chain among the first `size` leaves, by chain id."""
    options = {"stream_results": True, "yield_per": FETCH}
    return (Leaf(*row) for row in conn.execute(ENDS, {"log": log_id, "size": size}, execution_options=options))


def leaves_at(conn: Connection, log_id: int, positions: Sequence[int]) -> list[Leaf]:
    """The entries at these positions."""
    return [Leaf(*row) for row in conn.execute(AT, {"log": log_id, "positions": list(positions)})]


def signed(conn: Connection, log_id: int, size: int) -> str | None:
    """The note of the checkpoint that was signed for this size."""
    return conn.execute(SIGNED, {"log": log_id, "size": size}).scalar()


def signed_sizes(conn: Connection, log_id: int, size: int, most: int) -> list[int]:
    """The sizes for which checkpoints were signed, up to `size`, the newest `most`, the newest first."""
    return list(conn.execute(SIZES, {"log": log_id, "size": size, "most": most}).scalars())


def nearest_sizes(conn: Connection, log_id: int, size: int) -> list[int]:
    """Some sizes near to `size` for which checkpoints were signed."""
    return sorted(conn.execute(NEAREST, {"log": log_id, "size": size}).scalars())


def entry(conn: Connection, chain_id: UUID, seq: int) -> StoredEntry | None:
    """One entry with its content."""
    row = conn.execute(ENTRY, {"chain_id": chain_id, "seq": seq}).first()
    return None if row is None else StoredEntry._make(row[:-1])
