"""Tenants' logs in a test's database, grown without a sequencer: entries, their positions, and the log's row."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

from pipeline.chain import entry_hash, envelope
from pipeline.ledger.merkle import Frontier, extend, read_frontier

AT = 1_767_225_600_000_000


def add_log(database: Any, tenant: str = "acme", incarnation: int = 1) -> int:
    """An empty log."""
    ((log_id,),) = database.rows("INSERT INTO log (tenant, incarnation) VALUES (%s, %s) RETURNING id", tenant, incarnation)
    return int(log_id)


def grow(database: Any, log_id: int, count: int, seed: str = "") -> list[bytes]:
    """Adds `count` entries of a new chain to the log; gives their envelopes. `seed` makes them others."""
    ((tenant, size, packed),) = database.rows("SELECT tenant, size, frontier FROM log WHERE id = %s", log_id)
    chain = uuid4()
    envelopes, rows, before = [], [], None
    for seq in range(count):
        pc = sha256(f"{seed}{seq}".encode()).digest()
        envelopes.append(envelope(chain.hex, seq, before, tenant, AT + seq, "event", pc))
        hashed = entry_hash(envelopes[-1])
        rows.append((chain, seq, AT + seq, before, hashed, pc, tenant, "event"))
        before = hashed
    _copy(database, "entry (chain_id, seq, at, prev_hash, hash, pc, tenant, kind)", rows)
    position(database, log_id, [(chain, seq) for seq in range(count)], [row[4] for row in rows], size, packed)
    return envelopes


def position(
    database: Any, log_id: int, entries: Sequence[tuple[UUID, int]], hashes: Sequence[bytes], size: int, packed: bytes
) -> None:
    _copy(database, "leaf (log_id, position, chain_id, seq)", [(log_id, size + at, *each) for at, each in enumerate(entries)])
    frontier: Frontier = extend(read_frontier(size, bytes(packed)), hashes)
    database.run("UPDATE log SET size = %s, frontier = %s WHERE id = %s", frontier.size, frontier.packed, log_id)


def _copy(database: Any, table: str, rows: Sequence[tuple]) -> None:
    with database.run("SELECT 1").connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
