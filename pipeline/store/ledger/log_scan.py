"""Statements by which the verifier compares a tenant's log with the tenant's entries."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, text

from pipeline.store.ledger import scan
from pipeline.store.ledger.scan import Scope
from pipeline.store.ledger.waiting import SPANS

SHOWN: Final = 1000  # faults of one kind in one log

LOGS = text("""
    SELECT id, tenant, incarnation, size, frontier FROM log
    WHERE CAST(:tenant AS text) IS NULL OR tenant = :tenant ORDER BY id""")

CHECKPOINTS = text("SELECT size, root FROM checkpoint WHERE log_id = :log ORDER BY size")

NOTES = text("SELECT size, root, note FROM checkpoint WHERE log_id = :log ORDER BY size DESC")
KEYS = text("SELECT public FROM log_key WHERE log_id = :log")

# What an anchor gave a receipt for, and is not there.
ANCHORED = text("""
    SELECT DISTINCT size FROM anchor WHERE log_id = :log AND NOT EXISTS
      (SELECT FROM checkpoint WHERE checkpoint.log_id = anchor.log_id AND checkpoint.size = anchor.size) LIMIT :shown""")

# What belongs to no log. (Of a tenant: nothing tells whose it is.)
ASTRAY = text("""
    SELECT kind, log_id FROM (SELECT 'checkpoint' AS kind, log_id FROM checkpoint UNION SELECT 'anchor', log_id FROM anchor
      UNION SELECT 'log_key', log_id FROM log_key) AS each
    WHERE NOT EXISTS (SELECT FROM log WHERE log.id = each.log_id) LIMIT :shown""")

# In the order of the tree. Positions and hashes only: a sort on disk is small.
LEAVES = """
    SELECT leaf.position, entry.hash FROM leaf LEFT JOIN entry ON entry.chain_id = leaf.chain_id AND entry.seq = leaf.seq
    WHERE leaf.log_id = {log} ORDER BY leaf.position"""

# The log of an incarnation begins with its origin entry, and has the others in their chains' order.
DISORDER = text("""
    SELECT uuid_send(chain_id), seq, position, before FROM (
      SELECT chain_id, seq, position, lag(seq) OVER (PARTITION BY chain_id ORDER BY position) AS before
      FROM leaf WHERE log_id = :log AND position > :skipped) AS each
    WHERE seq <> coalesce(before + 1, 0) LIMIT :shown""")
ORIGIN = text("""
    SELECT entry.kind FROM leaf JOIN entry USING (chain_id, seq) WHERE leaf.log_id = :log AND leaf.position = 0""")

LOST = text("""
    SELECT uuid_send(leaf.chain_id), min(leaf.seq), max(leaf.seq), min(leaf.position), chain.subject
    FROM leaf LEFT JOIN entry ON entry.chain_id = leaf.chain_id AND entry.seq = leaf.seq
      LEFT JOIN chain ON chain.chain_id = leaf.chain_id
    WHERE leaf.log_id = :log AND entry.chain_id IS NULL GROUP BY leaf.chain_id, chain.subject LIMIT :shown""")

# Waits for its position, and is not there. OFFSET 0: each is looked up, however many the planner expects to wait.
LOST_WAITING = text(f"""
    SELECT uuid_send(waiting.chain_id), waiting.first, waiting.last, waiting.tenant, chain.subject
    FROM {SPANS} AS waiting LEFT JOIN chain ON chain.chain_id = waiting.chain_id
    WHERE (CAST(:tenant AS text) IS NULL OR waiting.tenant = :tenant) AND NOT EXISTS
      (SELECT FROM entry WHERE entry.chain_id = waiting.chain_id AND entry.seq = waiting.last OFFSET 0) LIMIT :shown""")  # noqa: S608 - constants

# A tenant that comes from another cell has its closed logs before its open one is whole.
ARRIVING = text("SELECT EXISTS (SELECT FROM tenant_move WHERE state = 'arriving')")
_COMING: Final = """
      AND NOT EXISTS (
        SELECT FROM leaf AS former JOIN tenant_move AS move ON move.state = 'arriving'
        WHERE former.chain_id = entry.chain_id AND former.seq = entry.seq AND move.tenant = entry.tenant)"""

# Has neither a position nor waits for one, and is not what is being deleted of a tenant that lives in another cell.
FORGOTTEN = (
    """
    SELECT uuid_send(entry.chain_id), min(entry.seq), max(entry.seq), entry.tenant, min(content.subject)
    FROM entry LEFT JOIN log ON log.tenant = entry.tenant AND log.state = 'open'
      LEFT JOIN leaf ON leaf.chain_id = entry.chain_id AND leaf.seq = entry.seq AND leaf.log_id = log.id
      LEFT JOIN content ON content.chain_id = entry.chain_id AND content.seq = entry.seq
    {where} AND leaf.log_id IS NULL AND NOT EXISTS
      (SELECT FROM """  # noqa: S608 - constants
    + SPANS
    + """ AS waiting WHERE waiting.chain_id = entry.chain_id AND waiting.tenant = entry.tenant
         AND entry.seq BETWEEN waiting.first AND waiting.last)
      AND NOT EXISTS (SELECT FROM tenant_move AS move WHERE move.tenant = entry.tenant AND move.state = 'finishing'){coming}
    GROUP BY entry.chain_id, entry.tenant LIMIT {shown}"""
)


@dataclass(frozen=True, slots=True)
class StoredLog:
    """A log's row."""

    id: int
    tenant: str
    incarnation: int
    size: int
    frontier: bytes


def logs(conn: Connection, tenant: str | None) -> Sequence[StoredLog]:
    """All logs, or those of a tenant."""
    return [StoredLog(row[0], row[1], row[2], row[3], bytes(row[4])) for row in conn.execute(LOGS, {"tenant": tenant})]


def checkpoints(conn: Connection, log: int) -> Sequence[tuple[int, bytes]]:
    """Size and root of every checkpoint of a log."""
    return [(row[0], bytes(row[1])) for row in conn.execute(CHECKPOINTS, {"log": log})]


def notes(conn: Connection, log: int) -> Iterator[tuple[int, bytes, str]]:
    """Size, root and note of every checkpoint of a log, the latest first."""
    for row in conn.execute(NOTES, {"log": log}, execution_options={"yield_per": 1000}):
        yield row[0], bytes(row[1]), row[2]


def anchored(conn: Connection, log: int) -> Sequence[int]:
    """The sizes of checkpoints that anchors gave receipts for, and that are not there."""
    return conn.execute(ANCHORED, {"log": log, "shown": SHOWN}).scalars().all()


def astray(conn: Connection) -> Sequence[Any]:
    """(table, log) of rows whose log is not there."""
    return conn.execute(ASTRAY, {"shown": SHOWN}).all()


def public_keys(conn: Connection, log: int) -> Sequence[bytes]:
    """The public keys that a log has or had."""
    return [bytes(key) for key in conn.execute(KEYS, {"log": log}).scalars()]


def leaves(conn: Connection, log: int) -> Iterator[tuple[int, bytes | None]]:
    """Position and entry's hash of every leaf in order; None where there is no such entry."""
    return scan.stream(conn, "leaves", LEAVES.format(log=int(log)), Scope())


def disorder(conn: Connection, log: int) -> Sequence[Any]:
    """(chain, seq, position, seq before it) of leaves that do not follow the one before of their chain."""
    skipped = 0 if conn.execute(ORIGIN, {"log": log}).scalar() == "origin" else -1
    return conn.execute(DISORDER, {"log": log, "skipped": skipped, "shown": SHOWN}).all()


def lost(conn: Connection, log: int) -> Sequence[Any]:
    """(chain, first, last, position, subject) of leaves whose entries are not in the ledger."""
    return conn.execute(LOST, {"log": log, "shown": SHOWN}).all()


def lost_waiting(conn: Connection, tenant: str | None) -> Sequence[Any]:
    """(chain, first, last, tenant, subject) of entries that wait for their positions and are not in the ledger."""
    return conn.execute(LOST_WAITING, {"tenant": tenant, "shown": SHOWN}).all()


def forgotten(conn: Connection, scope: Scope) -> Sequence[Any]:
    """(chain, first, last, tenant, subject) of entries that the log will never have: of a tenant, in the tenant's chains."""
    scope = scan.with_logs(conn, scope)
    where = scope.where("entry") + ("" if scope.tenant is None else " AND entry.tenant = %(tenant)s")
    coming = _COMING if conn.execute(ARRIVING).scalar_one() else ""
    return list(scan.stream(conn, "forgotten", FORGOTTEN.format(where=where, shown=SHOWN, coming=coming), scope))
