"""Statements that give entries their positions in their tenant's log."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, text

from pipeline.store.array_literals import plain
from pipeline.store.round_trip import together

# For this transaction only. A process that stands still in it loses its session, and with it the lock, before anybody waits
# for long. COMMIT does not wait for the disk: should Postgres crash, the positions are lost and their pending rows are back;
# and whoever acts on a position commits a row first (a checkpoint), which waits for all that was committed before it. By index
# whatever the statistics say: a plan made for a small table would scan a large one.
SETTINGS = text("""
    SELECT set_config(name, value, true) FROM (VALUES
      ('idle_in_transaction_session_timeout', :frozen), ('synchronous_commit', 'off'),
      ('enable_seqscan', 'off'), ('enable_bitmapscan', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'),
      ('jit', 'off')) AS local (name, value)""")

# Until the transaction ends. A statement of its own: those after it see all that the holder before has committed.
LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended('waxseal log ' || :tenant, 0))")

NEWEST_LOG = text("""
    SELECT id, size, frontier, state FROM log WHERE tenant = :tenant ORDER BY incarnation DESC LIMIT 1""")

MAKE_LOG = text("INSERT INTO log (tenant) VALUES (:tenant) RETURNING id, size, frontier, state")

# Takes the first pending rows, the last one perhaps in part, by the order of their ids, in which the entries of each chain
# follow each other. One statement, so that all of it sees the same rows. All hashes come in one string, because that many rows
# would take longer to read than to hash.
PLACE = text("""
    WITH waiting AS (
      SELECT ctid, id, chain_id, first, last, sum(CAST(least(last - first + 1, :most) AS int)) OVER (ORDER BY id) AS upto
      FROM (SELECT ctid, * FROM log_pending
            WHERE tenant = :tenant AND id > :floor AND chain_id <> ALL (CAST(:aside AS uuid[]))
            ORDER BY id LIMIT :most) AS earliest),
    span AS MATERIALIZED (
      SELECT ctid, id, chain_id, first, last,
        least(last, first + :most - 1 - coalesce(lag(upto) OVER (ORDER BY id), 0)) AS until
      FROM waiting),
    taken AS MATERIALIZED (
      SELECT :size + row_number() OVER (ORDER BY span.id, entry.seq) - 1 AS position, entry.chain_id, entry.seq, entry.hash
      FROM span JOIN entry ON entry.chain_id = span.chain_id AND entry.seq BETWEEN span.first AND span.until),
    placed AS (
      INSERT INTO leaf (log_id, position, chain_id, seq) SELECT :log, position, chain_id, seq FROM taken ORDER BY position),
    finished AS (DELETE FROM log_pending USING span WHERE log_pending.ctid = span.ctid AND until = span.last),
    trimmed AS (
      UPDATE log_pending SET first = until + 1 FROM span
      WHERE log_pending.ctid = span.ctid AND until >= span.first AND until < span.last)
    SELECT (SELECT CAST(coalesce(sum(until - first + 1), 0) AS bigint) FROM span WHERE until >= first),
      (SELECT coalesce(string_agg(hash, '' ORDER BY position), '') FROM taken)""")

# The chains of which entries are pending that are not in the ledger.
INCOMPLETE = text("""
    SELECT DISTINCT chain_id FROM (
      SELECT chain_id, first, least(last, first + :most - 1) AS until FROM log_pending
      WHERE tenant = :tenant AND id > :floor AND chain_id <> ALL (CAST(:aside AS uuid[]))
      ORDER BY id LIMIT :most) AS span
    WHERE until - first + 1 <> (
      SELECT count(*) FROM entry WHERE entry.chain_id = span.chain_id AND seq BETWEEN first AND until)""")

GROW = text("UPDATE log SET size = :size, frontier = :frontier WHERE id = :log AND size = :before RETURNING id")


class Log(NamedTuple):
    """A log's row: how many leaves it has, and its packed frontier."""

    id: int
    size: int
    frontier: bytes
    state: str


class Choice(NamedTuple):
    """What of a tenant to position: pending ids above `floor`, none of the chains `aside` (hex), at most `most` entries."""

    tenant: str
    floor: int
    aside: Collection[str]
    most: int


def lock(conn: Connection, tenant: str, frozen: float) -> Log | None:
    """Locks the tenant's positions until the transaction ends, and gives its newest log, which is made if there is none.

    None when another process has the lock. `frozen`: the seconds that this process may stand still in the transaction.
    """
    given = {"tenant": tenant}
    settings = {"frozen": f"{int(frozen * 1000)}ms"}
    _, ((locked,),), found = together(conn, [(SETTINGS, settings), (LOCK, given), (NEWEST_LOG, given)])
    if not locked:
        return None
    return Log(*(found or together(conn, [(MAKE_LOG, given)])[0])[0])


def place(conn: Connection, log: Log, choice: Choice) -> tuple[int, bytes]:
    """Gives pending entries the positions from the log's size on, and removes them from what is pending.

    The number of entries, and the hashes of those that are in the ledger, one after another.
    """
    ((entries, hashes),) = together(conn, [(PLACE, {**_given(choice), "size": log.size, "log": log.id})])[0]
    return entries, bytes(hashes)


def incomplete(conn: Connection, choice: Choice) -> list[str]:
    """The chains, as 32 hex digits, that lack entries of those pending. Call it before `place`, or after a rollback."""
    return [chain_id.hex for (chain_id,) in conn.execute(INCOMPLETE, _given(choice))]


def grow(conn: Connection, log: Log, size: int, frontier: bytes) -> bool:
    """Moves the log to its new size; False if another has moved it."""
    return bool(together(conn, [(GROW, {"size": size, "frontier": frontier, "log": log.id, "before": log.size})])[0])


def _given(choice: Choice) -> Mapping[str, object]:
    return {**choice._asdict(), "aside": plain(choice.aside)}
