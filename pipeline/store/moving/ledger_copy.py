"""Statements that copy a tenant's ledger between two databases, by the positions in its log, and compare the copies.

A piece of a log is copied in one transaction: entries, content, the chains' heads, the leaves, the log's row. So the copy is
at each moment the ledger as it was when its log had that size, and its size is all that is to be known to go on. A tenant whose
log was begun anew has several, which come one after the other, as they were begun: of a later one, only the leaves come again.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, text

from pipeline.store.moving.unsettled import unsettled
from pipeline.store.round_trip import NOTHING

_ENTRY: Final = "chain_id, seq, at, fingerprint, prev_hash, hash, pc, tenant, kind"
_CONTENT: Final = 'chain_id, seq, attributes, body, blob, salt, source, type, subject, "time"'
_DOCUMENT: Final = "chain_id, seq, due, document, parser, made_at"
_CHAIN: Final = "key, tenant, subject, chain_id"
_LEAVES: Final = "leaf WHERE log_id = %(log)s AND position >= %(first)s AND position < %(end)s"
_NOT_YET: Final = """ AND NOT EXISTS (
    SELECT FROM leaf AS former WHERE former.chain_id = leaf.chain_id AND former.seq = leaf.seq AND log_id = ANY(%(former)s))"""

LOGS = text("""
    SELECT id, incarnation, size, frontier, state = 'closed' FROM log WHERE tenant = :tenant ORDER BY incarnation""")
CLOSE = text("UPDATE log SET state = 'closed' WHERE id = :log")
MAKE_LOG = text("INSERT INTO log (tenant, incarnation) VALUES (:tenant, :incarnation)")
GROW = text("UPDATE log SET size = :size, frontier = :frontier WHERE id = :log AND size = :before")

HASHES = text("""
    SELECT hash FROM leaf JOIN entry USING (chain_id, seq)
    WHERE log_id = :log AND position >= :first AND position < :end ORDER BY position""")

BLOBS = text("""
    SELECT DISTINCT blob FROM leaf JOIN content USING (chain_id, seq)
    WHERE log_id = :log AND position >= :first AND position < :end AND blob IS NOT NULL""")

# The heads are the last of the copied entries.
PUT_CHAINS = text("""
    INSERT INTO chain (key, tenant, subject, chain_id, seq, hash)
    SELECT moved.key, moved.tenant, moved.subject, moved.chain_id, last.seq, last.hash FROM moved_chain AS moved
    CROSS JOIN LATERAL (
      SELECT seq, hash FROM entry WHERE entry.chain_id = moved.chain_id ORDER BY seq DESC LIMIT 1) AS last
    ON CONFLICT (key) DO UPDATE SET seq = excluded.seq, hash = excluded.hash WHERE excluded.seq > chain.seq""")
PUT_SUBJECTS = text("""
    UPDATE chain SET subject = moved.subject FROM moved_chain AS moved
    WHERE chain.key = moved.key AND chain.subject IS DISTINCT FROM moved.subject""")

# What was copied before it was erased goes as it went: with the erasure's entry, and the blob when the eraser sees to it.
ERASE = text("""
    WITH listed AS (
      SELECT leaf.chain_id, CAST(run ->> 0 AS bigint) AS first, CAST(run ->> 1 AS bigint) AS last
      FROM leaf JOIN entry USING (chain_id, seq) JOIN content USING (chain_id, seq)
      CROSS JOIN LATERAL jsonb_array_elements(CAST(convert_from(content.body, 'UTF8') AS jsonb) -> 'seqs') AS run
      WHERE log_id = :log AND position >= :first AND position < :end AND entry.kind = 'erasure'),
    gone AS (
      DELETE FROM content USING listed
      WHERE content.chain_id = listed.chain_id AND content.seq BETWEEN listed.first AND listed.last RETURNING blob)
    INSERT INTO erased_blob (tenant, reference, erased_at)
    SELECT DISTINCT :tenant, blob, now() FROM gone WHERE blob IS NOT NULL ON CONFLICT DO NOTHING""")

# Every byte of what is there, in the order of the log.
DIGEST = text("""
    SELECT count(*), count(content.chain_id),
      encode(sha256(coalesce(string_agg(entry.hash || sha256(
        coalesce(content.attributes || content.salt || coalesce(content.body, convert_to(content.blob, 'UTF8')), '')),
        '' ORDER BY position), '')), 'hex')
    FROM leaf JOIN entry USING (chain_id, seq) LEFT JOIN content USING (chain_id, seq)
    WHERE log_id = :log AND position >= :first AND position < :end""")

HEADS = text("""
    SELECT count(*), encode(sha256(coalesce(string_agg(uuid_send(key) || uuid_send(chain_id) || int8send(seq) || hash,
      '' ORDER BY key), '')), 'hex') FROM chain WHERE tenant = :tenant AND seq >= 0""")

_ENDPOINTS: Final = "ARRAY(SELECT endpoint.id FROM endpoint JOIN tenant ON tenant.id = tenant_id WHERE tenant.name = :tenant)"

SIZES = text(f"""
    SELECT (SELECT count(*) FROM chain WHERE tenant = :tenant) AS chains,
           (SELECT count(*) FROM chain_aside WHERE tenant = :tenant AND mended_at IS NULL) AS broken,
           (SELECT CAST(coalesce(sum(size), 0) AS bigint) FROM log WHERE tenant = :tenant AND state = 'open')
             + (SELECT CAST(coalesce(sum(entries), 0) AS bigint) FROM log_pending WHERE tenant = :tenant) AS entries,
           (SELECT CAST(coalesce(sum(entries), 0) AS bigint) FROM log_pending WHERE tenant = :tenant) AS waiting,
           (SELECT count(*) FROM log WHERE tenant = :tenant AND state = 'closed') AS closed_logs,
           (SELECT count(*) FROM source JOIN tenant ON tenant.id = tenant_id WHERE tenant.name = :tenant) AS sources,
           (SELECT count(*) FROM mailbox JOIN source USING (id) JOIN tenant ON tenant.id = tenant_id
            WHERE tenant.name = :tenant) AS mailboxes,
           (SELECT count(*) FROM endpoint JOIN tenant ON tenant.id = tenant_id WHERE tenant.name = :tenant) AS endpoints,
           (SELECT count(*) FROM ({unsettled(_ENDPOINTS)}) AS each) AS deliveries,
           (SELECT count(*) FROM dead_letter WHERE tenant = :tenant AND state = 'open') AS dead_letters,
           (SELECT count(*) FROM job WHERE tenant = :tenant AND state IN ('queued', 'running')) AS jobs""")  # noqa: S608


class LogRow(NamedTuple):
    """A log of a tenant."""

    id: int
    incarnation: int
    size: int
    frontier: bytes
    closed: bool


class Span(NamedTuple):
    """The leaves from `first` on, before `end`."""

    first: int
    end: int


def logs_of(conn: Connection, tenant: str) -> list[LogRow]:
    """The tenant's logs, as they were begun: the last one is open, those before it are closed."""
    rows = conn.execute(LOGS, {"tenant": tenant}).all()
    return [LogRow(row[0], row[1], row[2], bytes(row[3]), row[4]) for row in rows]


def log_of(conn: Connection, tenant: str) -> LogRow | None:
    """The tenant's newest log."""
    return next(reversed(logs_of(conn, tenant)), None)


def make_log(conn: Connection, tenant: str, incarnation: int, former: LogRow | None) -> LogRow:
    """An empty log of the same name; the one before it is closed."""
    if former is not None:
        conn.execute(CLOSE, {"log": former.id})
    conn.execute(MAKE_LOG, {"tenant": tenant, "incarnation": incarnation})
    return logs_of(conn, tenant)[-1]


def pieces(first: int, end: int, most: int) -> Iterator[Span]:
    """The leaves in pieces of at most `most`."""
    return (Span(at, min(at + most, end)) for at in range(first, end, most))


def blobs(conn: Connection, log: int, span: Span) -> Sequence[str]:
    """The references of the bodies that are in the blob store."""
    return conn.execute(BLOBS, {"log": log, **span._asdict()}).scalars().all()


def copy_piece(source: Connection, log: int, target: Connection, into: int, span: Span, former: Sequence[int]) -> None:
    """Copies the piece from log `log` to log `into`, all but the log's row. The ledger's own checks are made on the way.

    What is in the `former` logs has been copied with them. Raises a violation if an entry's hash or link is wrong.
    """
    given: Mapping[str, Any] = {"log": log, "into": into, "former": list(former), **span._asdict()}
    new = f"{_LEAVES}{_NOT_YET if former else ''}"
    of = f"JOIN (SELECT position, chain_id, seq FROM {new}) AS leaf USING (chain_id, seq)"  # noqa: S608 - constants
    for table, columns, order in (
        ("entry", _ENTRY, "ORDER BY position"),
        ("content", _CONTENT, "ORDER BY position"),
        ("mail_document", _DOCUMENT, ""),
    ):
        pump(source, target, f"SELECT {columns} FROM {table} {of} {order}", f"{table} ({columns})", given)  # noqa: S608
    target.execute(text("CREATE TEMPORARY TABLE moved_chain (LIKE chain) ON COMMIT DROP"))
    target.execute(text("ALTER TABLE moved_chain ALTER seq DROP NOT NULL"))
    chains = f"SELECT {_CHAIN} FROM chain WHERE chain_id IN (SELECT chain_id FROM {_LEAVES})"  # noqa: S608 - constants
    pump(source, target, chains, f"moved_chain ({_CHAIN})", given)
    target.execute(PUT_CHAINS)
    target.execute(PUT_SUBJECTS)
    leaves = f"SELECT %(into)s::int, position, chain_id, seq FROM {_LEAVES} ORDER BY position"  # noqa: S608 - constants
    pump(source, target, leaves, "leaf (log_id, position, chain_id, seq)", given)


def erase_listed(conn: Connection, tenant: str, log: int, span: Span) -> None:
    """Deletes the content that erasures among these leaves list: it was copied before it was erased."""
    conn.execute(ERASE, {"tenant": tenant, "log": log, **span._asdict()})


def hashes(conn: Connection, log: int, span: Span) -> list[bytes]:
    """The hashes of the entries at these leaves."""
    return [bytes(each) for each in conn.execute(HASHES, {"log": log, **span._asdict()}).scalars()]


def grow(conn: Connection, log: LogRow, size: int, frontier: bytes) -> bool:
    """Moves the log to its new size; False if another mover has moved it."""
    return bool(conn.execute(GROW, {"log": log.id, "before": log.size, "size": size, "frontier": frontier}).rowcount)


def digest(conn: Connection, log: int, span: Span) -> tuple[int, int, str]:
    """How many entries and contents these leaves have, and a hash over all of their bytes."""
    return tuple(conn.execute(DIGEST, {"log": log, **span._asdict()}).one())


def heads(conn: Connection, tenant: str) -> tuple[int, str]:
    """How many chains the tenant has, and a hash over where each of them ends."""
    return tuple(conn.execute(HEADS, {"tenant": tenant}).one())


def sizes(conn: Connection, tenant: str) -> Mapping[str, int]:
    """How much there is of the tenant, by what it is."""
    return dict(conn.execute(SIZES, {"tenant": tenant}).mappings().one())


def pump(source: Connection, target: Connection, query: str, into: str, given: Mapping[str, Any]) -> int:
    """Copies the rows of a query into columns of a table of another database, as they are; returns how many."""
    for conn in (source, target):
        if not conn.in_transaction():
            conn.execute(NOTHING)
    one, other = source.connection.driver_connection, target.connection.driver_connection
    assert one is not None
    assert other is not None
    with one.cursor() as reads, other.cursor() as writes:
        with (
            reads.copy(f"COPY ({query}) TO STDOUT (FORMAT binary)", given) as rows,
            writes.copy(f"COPY {into} FROM STDIN (FORMAT binary)") as sink,
        ):
            for data in rows:
                sink.write(data)
        return int(writes.rowcount)
