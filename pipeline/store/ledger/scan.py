"""Statements that read the ledger to verify and export it: all of it, in chain order, in bounded memory."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, text

from schemas.ledger.ledger_rows import StoredChain, StoredEntry

FETCH: Final = 500  # rows in memory at once
INLINE: Final = 64 * 1024  # bytes; larger bodies are fetched one by one, so that memory is bounded
SMALL: Final = 32 * 1024  # bytes of attributes and body that are read in pages; both are in memory twice

# In chain order, so that one pass sees each chain whole; an index has that order, so no sort is needed.
_ENTRY = """
    SELECT uuid_send(entry.chain_id), entry.seq, prev_hash, hash, tenant, at, kind, pc, uuid_send(fingerprint),"""
ENTRIES = (
    _ENTRY
    + """
           attributes, CASE WHEN octet_length(body) <= {inline} THEN body END, blob, salt,
           source, type, subject, timestamptz_send("time"), octet_length(body) > {inline}
    FROM entry LEFT JOIN content ON content.chain_id = entry.chain_id AND content.seq = entry.seq {beside}
    {where} ORDER BY entry.chain_id, entry.seq"""
)
PAGES = (
    _ENTRY
    + """
           CASE WHEN small THEN attributes END, CASE WHEN small THEN body END, blob, salt,
           source, type, subject, timestamptz_send("time"), NOT small
    FROM entry LEFT JOIN content ON content.chain_id = entry.chain_id AND content.seq = entry.seq {beside}
      CROSS JOIN LATERAL
        (SELECT coalesce(octet_length(body), 0) + coalesce(octet_length(attributes), 0) <= {small}) AS size (small)
    {where} ORDER BY entry.chain_id, entry.seq"""
)

# A look-up of each chain, and no pass over all entries, however many chains there may be. What is LATERAL and has an OFFSET is
# joined by a nested loop, which keeps the order of both; the planner does not know that, and would sort all bodies.
PAGES_OF_EACH = (
    "SELECT each.* FROM ({chains} ORDER BY chain_id OFFSET 0) AS wanted (wanted_chain, after) "  # noqa: S608 - constants
    "CROSS JOIN LATERAL (" + PAGES.replace("{beside}", "") + " OFFSET 0) AS each"
)

BODY = text("SELECT body FROM content WHERE chain_id = CAST(:chain_id AS uuid) AND seq = :seq LIMIT 1")

CONTENT = text("SELECT attributes, body FROM content WHERE chain_id = CAST(:chain_id AS uuid) AND seq = :seq LIMIT 1")

CHAINS = """
    SELECT uuid_send(key), tenant, subject, uuid_send(chain_id), seq, hash FROM chain {where} ORDER BY chain_id"""

# Finds entries deleted without their content. Whose they are, other tables may still tell.
STRAY_CONTENT = """
    SELECT uuid_send(content.chain_id), content.seq,
           coalesce(chain.tenant,
                    (SELECT log.tenant FROM leaf JOIN log ON log.id = leaf.log_id
                     WHERE leaf.chain_id = content.chain_id AND leaf.seq = content.seq LIMIT 1),
                    (SELECT delivery.tenant FROM delivery
                     WHERE delivery.chain_id = content.chain_id AND delivery.seq = content.seq LIMIT 1),
                    (SELECT log_pending.tenant FROM log_pending WHERE content.chain_id = ANY (chain_ids) LIMIT 1)),
           content.subject
    FROM content LEFT JOIN chain ON chain.chain_id = content.chain_id
    {where} AND NOT EXISTS
      (SELECT FROM entry WHERE entry.chain_id = content.chain_id AND entry.seq = content.seq)
    ORDER BY content.chain_id, content.seq"""

# Cheap: one row for each chain. The numbers are those of the heads.
SIZE = text("SELECT count(*), coalesce(sum(seq + 1), 0) FROM chain")
SIZE_OF = text("SELECT coalesce(sum(seq + 1), 0) FROM chain WHERE tenant = :tenant")

SETTLE = text("VACUUM (ANALYZE) entry, content, chain")
EXPORT_SNAPSHOT = text("SELECT pg_export_snapshot()")

# A chain belongs to a tenant if its row says so, or the tenant's log: a row can be deleted or altered.
# (As an array, they are looked up by index, whatever part of all chains the planner takes them for.)
OF_TENANT: Final = """
    {table}.chain_id = ANY(ARRAY(SELECT chain_id FROM chain WHERE tenant = %(tenant)s
      UNION SELECT leaf.chain_id FROM leaf WHERE leaf.log_id IN ({logs}) AND leaf.seq = 0
      UNION SELECT unnest(chain_ids) FROM log_pending WHERE log_pending.tenant = %(tenant)s))"""
_LOGS: Final = "SELECT id FROM log WHERE tenant = %(tenant)s"
LOGS = text("SELECT id FROM log WHERE tenant = :tenant ORDER BY id")

# By key and also by tenant and subject, because either can be altered. The index has a digest of the subject.
OF_SUBJECT: Final = """
    {table}.chain_id = ANY(ARRAY(SELECT chain_id FROM chain WHERE key = CAST(%(key)s AS uuid) UNION SELECT chain_id FROM chain
      WHERE tenant = %(tenant)s AND subject = %(subject)s
        AND hashtextextended(subject, 0) = hashtextextended(%(subject)s, 0)))"""


Range = tuple[int, int] | None
"""The chains whose ids lie in the k-th of n equal parts of all ids; `(n, n)` are the rows without an id."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What to read: everything, one tenant, or one subject of a tenant; `key` is that subject's chain key, if known.

    `part` is one of n parts of it. `logs`: the tenant's, if they are known (`with_logs`): then its leaves are found by index.
    """

    tenant: str | None = None
    subject: str | None = None
    key: bytes | None = None
    part: Range = None
    logs: tuple[int, ...] | None = None

    def condition(self, table: str) -> str:
        """The condition on `table`, made of constants only."""
        clause = "true" if self.tenant is None else OF_TENANT if self.subject is None else OF_SUBJECT
        logs = _LOGS if self.logs is None else ", ".join(map(str, self.logs)) or "NULL"
        return clause.format(table=table, logs=logs) + self._within(table)

    def where(self, table: str) -> str:
        """The same, as the first one of a statement."""
        return "WHERE " + self.condition(table)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The parameters in `where`."""
        return {"tenant": self.tenant, "subject": self.subject, "key": self.key and self.key.hex()}

    def _within(self, table: str) -> str:
        if self.part is None:
            return ""
        return " AND " + within(f"{table}.chain_id", self.part)


def within(column: str, part: tuple[int, int]) -> str:
    """The condition that an id lies in a part of all ids."""
    number, count = part
    if number == count:
        return f"{column} IS NULL"
    first, end = (UUID(int=(1 << 128) * number // count), (1 << 128) * (number + 1) // count)
    before = "" if number + 1 == count else f" AND {column} < '{UUID(int=end)}'"
    return f"{column} >= '{first}'{before}"


def with_logs(conn: Connection, scope: Scope) -> Scope:
    """The same scope, with its tenant's logs."""
    if scope.tenant is None or scope.logs is not None:
        return scope
    return replace(scope, logs=tuple(conn.execute(LOGS, {"tenant": scope.tenant}).scalars()))


def size(conn: Connection) -> tuple[int, int]:
    """The numbers of chains and of entries, according to the chains' rows."""
    chains, entries = conn.execute(SIZE).one()
    return int(chains), int(entries)


def size_of(conn: Connection, tenant: str) -> int:
    """The number of a tenant's entries, according to its chains' rows."""
    return int(conn.execute(SIZE_OF, {"tenant": tenant}).scalar_one())


def settle(conn: Connection) -> None:
    """Leave the ledger's tables as autovacuum would, for a benchmark. Not in a transaction."""
    conn.execute(SETTLE)


def export_snapshot(conn: Connection) -> str:
    """A name by which other transactions can see what this one sees, while it lasts."""
    return str(conn.execute(EXPORT_SNAPSHOT).scalar_one())


def import_snapshot(conn: Connection, name: str) -> None:
    """See what another transaction sees. Must be the first statement of its transaction."""
    conn.exec_driver_sql(f"SET TRANSACTION SNAPSHOT '{name}'")


def entries(conn: Connection, scope: Scope) -> Iterator[StoredEntry]:
    """Every entry in chain order, with whatever exists of its content."""
    scope = with_logs(conn, scope)
    statement = ENTRIES.format(inline=INLINE, beside=f"AND {scope.condition('content')}", where=scope.where("entry"))
    for row in stream(conn, "entries", statement, scope):
        entry = StoredEntry._make(row[:-1])
        yield entry._replace(body=body(conn, entry.chain_id, entry.seq)) if row[-1] else entry


def chains(conn: Connection, scope: Scope) -> Iterator[StoredChain]:
    """Every chain's row in the order of chain ids."""
    return map(StoredChain._make, stream(conn, "chains", CHAINS.format(where=scope.where("chain")), scope))


def pages(conn: Connection, scope: Scope) -> Iterator[Sequence[tuple[Any, ...]]]:
    """Every entry in chain order, with what exists of its content, in pages of rows.

    A row has the columns of `StoredEntry`, and tells whether attributes and body are too large to be among them: `content`.
    """
    beside = f"AND {scope.condition('content')}"
    yield from _pages(conn, PAGES.format(small=SMALL, beside=beside, where=scope.where("entry")), scope)


def pages_of_each(conn: Connection, chains: str) -> Iterator[Sequence[tuple[Any, ...]]]:
    """The same of single chains, each after an entry; `chains` selects their ids and those entries' numbers."""
    each = "WHERE entry.chain_id = wanted_chain AND entry.seq > after"
    yield from _pages(conn, PAGES_OF_EACH.format(small=SMALL, chains=chains, where=each), Scope())


def _pages(conn: Connection, statement: str, scope: Scope) -> Iterator[Sequence[tuple[Any, ...]]]:
    with _cursor(conn, "pages", statement, scope) as cursor:
        while page := cursor.fetchmany(FETCH):
            yield page


def content(conn: Connection, chain_id: bytes, seq: int) -> tuple[bytes | None, bytes | None]:
    """The attributes and the body of an entry, of any size."""
    found = conn.execute(CONTENT, {"chain_id": chain_id.hex(), "seq": seq}).one_or_none()
    return (None, None) if found is None else (found.attributes, found.body)


def stray_content(conn: Connection, scope: Scope) -> Iterator[tuple[bytes, int, str | None, str]]:
    """The (chain id, number, tenant if it can be told, subject) of content without an entry."""
    return stream(conn, "strays", STRAY_CONTENT.format(where=scope.where("content")), scope)


def stream(conn: Connection, name: str, statement: str, scope: Scope) -> Iterator[Any]:
    """The rows of a statement, in binary form, in bounded memory."""
    with _cursor(conn, name, statement, scope) as cursor:
        yield from cursor


@contextmanager
def _cursor(conn: Connection, name: str, statement: str, scope: Scope) -> Iterator[Any]:
    """A server-side cursor, read in pieces, in binary form, which needs no parsing."""
    driver = conn.connection.driver_connection
    assert driver is not None
    with driver.cursor(name) as cursor:
        cursor.itersize = FETCH
        cursor.execute(statement, scope.parameters, binary=True)
        yield cursor


def body(conn: Connection, chain_id: bytes, seq: int) -> bytes | None:
    """One body, of any size; None when it is missing."""
    found = conn.execute(BODY, {"chain_id": chain_id.hex(), "seq": seq}).scalar()
    return None if found is None else bytes(found)
