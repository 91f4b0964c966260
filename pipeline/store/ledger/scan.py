"""Statements that read the ledger to verify and export it: all of it, in chain order, in bounded memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, text

from schemas.ledger_rows import StoredChain, StoredEntry

FETCH: Final = 500  # rows in memory at once
INLINE: Final = 64 * 1024  # bytes; larger bodies are fetched one by one, so that memory is bounded

# In chain order, so that one pass sees each chain whole; an index has that order, so no sort is needed.
ENTRIES = """
    SELECT uuid_send(entry.chain_id), entry.seq, prev_hash, hash, tenant, at, kind, pc,
           uuid_send(fingerprint), attributes, CASE WHEN octet_length(body) <= {inline} THEN body END, blob, salt,
           source, type, subject, timestamptz_send("time"), octet_length(body) > {inline}
    FROM entry LEFT JOIN content ON content.chain_id = entry.chain_id AND content.seq = entry.seq
    {where} ORDER BY entry.chain_id, entry.seq"""

BODY = text("SELECT body FROM content WHERE chain_id = CAST(:chain_id AS uuid) AND seq = :seq LIMIT 1")

CHAINS = """
    SELECT uuid_send(key), tenant, subject, uuid_send(chain_id), seq, hash FROM chain {where} ORDER BY chain_id"""

# Finds entries deleted without their content.
STRAY_CONTENT = """
    SELECT uuid_send(chain_id), seq, subject FROM content {where} AND NOT EXISTS
      (SELECT FROM entry WHERE entry.chain_id = content.chain_id AND entry.seq = content.seq)
    ORDER BY chain_id, seq"""

# Cheap: one row for each chain. The numbers are those of the heads.
SIZE = text("SELECT count(*), coalesce(sum(seq + 1), 0) FROM chain")

# A chain belongs to a tenant if its row, or only one of its entries, names the tenant: a row can be deleted or altered.
OF_TENANT: Final = """
    {table}.chain_id IN (SELECT chain_id FROM chain WHERE tenant = %(tenant)s UNION SELECT chain_id FROM entry
      WHERE tenant = %(tenant)s AND NOT EXISTS
        (SELECT FROM chain WHERE chain.chain_id = entry.chain_id AND chain.tenant = %(tenant)s))"""

# By key and also by tenant and subject, because either can be altered.
OF_SUBJECT: Final = """
    {table}.chain_id IN (SELECT chain_id FROM chain WHERE key = CAST(%(key)s AS uuid) UNION SELECT chain_id FROM chain
      WHERE tenant = %(tenant)s AND subject = %(subject)s)"""


@dataclass(frozen=True, slots=True)
class Scope:
    """What to read: everything, one tenant, or one subject of a tenant; `key` is that subject's chain key, if known."""

    tenant: str | None = None
    subject: str | None = None
    key: bytes | None = None

    def where(self, table: str) -> str:
        """The condition on `table`, made of constants only."""
        clause = "true" if self.tenant is None else OF_TENANT if self.subject is None else OF_SUBJECT
        return "WHERE " + clause.format(table=table)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The parameters in `where`."""
        return {"tenant": self.tenant, "subject": self.subject, "key": self.key and self.key.hex()}


def size(conn: Connection) -> tuple[int, int]:
    """The numbers of chains and of entries, according to the chains' rows."""
    chains, entries = conn.execute(SIZE).one()
    return int(chains), int(entries)


def entries(conn: Connection, scope: Scope) -> Iterator[StoredEntry]:
    """Every entry in chain order, with whatever exists of its content."""
    statement = ENTRIES.format(inline=INLINE, where=scope.where("entry"))
    for row in _stream(conn, "entries", statement, scope):
        entry = StoredEntry._make(row[:-1])
        yield entry._replace(body=body(conn, entry.chain_id, entry.seq)) if row[-1] else entry


def chains(conn: Connection, scope: Scope) -> Iterator[StoredChain]:
    """Every chain's row in the order of chain ids."""
    return map(StoredChain._make, _stream(conn, "chains", CHAINS.format(where=scope.where("chain")), scope))


def stray_content(conn: Connection, scope: Scope) -> Iterator[tuple[bytes, int, str]]:
    """The (chain id, number, subject) of content without an entry."""
    return _stream(conn, "strays", STRAY_CONTENT.format(where=scope.where("content")), scope)


def _stream(conn: Connection, name: str, statement: str, scope: Scope) -> Iterator[Any]:
    """Rows from a server-side cursor, fetched in pieces, in binary form, which needs no parsing."""
    driver = conn.connection.driver_connection
    assert driver is not None
    with driver.cursor(name) as cursor:
        cursor.itersize = FETCH
        cursor.execute(statement, scope.parameters, binary=True)
        yield from cursor


def body(conn: Connection, chain_id: bytes, seq: int) -> bytes | None:
    """One body, of any size; None when it is missing."""
    found = conn.execute(BODY, {"chain_id": chain_id.hex(), "seq": seq}).scalar()
    return None if found is None else bytes(found)
