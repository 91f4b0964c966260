"""Statements that give entries their positions in their tenant's log."""

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

from pipeline.store.array_literals import plain
from pipeline.store.round_trip import Query, together

# For this transaction only. A process that stands still in it loses its session, and with it the lock, before anybody waits
# for long. COMMIT does not wait for the disk: should Postgres crash, the positions are lost and their pending rows are back;
# and whoever acts on a position commits a row first (a checkpoint), which waits for all that was committed before it. By index
# whatever the statistics say: a plan made for a small table would scan a large one; so one plan will do for all.
SETTINGS = text("""
    SELECT set_config(name, value, true) FROM (VALUES
      ('idle_in_transaction_session_timeout', :frozen), ('synchronous_commit', 'off'),
      ('enable_seqscan', 'off'), ('enable_bitmapscan', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'),
      ('jit', 'off'), ('plan_cache_mode', 'force_generic_plan')) AS local (name, value)""")

# Until the transaction ends. A statement of its own: those after it see all that the holder before has committed.
LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended('waxseal log ' || :tenant, 0))")

NEWEST_LOG = text("""
    SELECT id, size, frontier, state FROM log WHERE tenant = :tenant ORDER BY incarnation DESC LIMIT 1""")

MAKE_LOG = text("INSERT INTO log (tenant) VALUES (:tenant) RETURNING id, size, frontier, state")

# As many of the first rows as fit, in the order of their ids, in which the entries of each chain follow each other: the last
# one's id, or that of the first row if it alone does not fit, and whether there are more. Rows that only have chains that are
# set aside are passed over.
CHOOSE = text("""
    SELECT coalesce(max(id) FILTER (WHERE upto <= :most), min(id)), count(*) FILTER (WHERE upto <= :most) > 0,
      count(*) > count(*) FILTER (WHERE upto <= :most) OR count(*) = :rows
    FROM (SELECT id, sum(entries) OVER (ORDER BY id) AS upto
          FROM (SELECT id, CAST(least(entries, :most + 1) AS int) AS entries FROM log_pending
                WHERE tenant = :tenant AND id > :floor
                  AND (cardinality(CAST(:aside AS uuid[])) = 0 OR NOT chain_ids <@ CAST(:aside AS uuid[]))
                ORDER BY id LIMIT :rows) AS earliest) AS each""")

# Whole rows, which go.
_WHOLE = """
    WITH gone AS (
      DELETE FROM log_pending WHERE tenant = :tenant AND id > :floor AND id <= :last RETURNING id, chain_ids, firsts, counts),
    span AS (
      SELECT id, chain_id, first, count AS take FROM gone
      CROSS JOIN LATERAL unnest(chain_ids, firsts, counts) AS each (chain_id, first, count))"""

# Parts of rows: not the chains that are set aside, and not what is too much. A row of which all is taken goes; another keeps
# what is after the last span that was taken whole, the rest of one that was not, and the chains that are set aside.
_PART = """
    WITH offered AS (
      SELECT id, spans, nth, chain_id, first, count,
        sum(CAST(least(count, :most) AS int)) OVER (ORDER BY id, nth) - least(count, :most) AS before
      FROM (SELECT id, chain_ids, firsts, counts, cardinality(counts) AS spans FROM log_pending
            WHERE tenant = :tenant AND id > :floor AND id <= :last OFFSET 0) AS row
      CROSS JOIN LATERAL unnest(chain_ids, firsts, counts) WITH ORDINALITY AS each (chain_id, first, count, nth)
      WHERE chain_id <> ALL (CAST(:aside AS uuid[]))),
    span AS MATERIALIZED (
      SELECT id, spans, nth, chain_id, first, count, least(count, :most - before) AS take FROM offered WHERE before < :most)"""

_REST = """,
    begun AS MATERIALIZED (
      SELECT id, count(*) FILTER (WHERE take = count) = max(spans) AS finished,
        coalesce(max(nth) FILTER (WHERE take = count), 0) AS done,
        max(nth) FILTER (WHERE take < count) AS part, max(take) FILTER (WHERE take < count) AS parted
      FROM span GROUP BY id),
    finished AS (
      DELETE FROM log_pending WHERE tenant = :tenant AND id > :floor AND id <= :last
        AND id = ANY (ARRAY(SELECT id FROM begun WHERE finished))),
    trimmed AS (
      UPDATE log_pending SET (chain_ids, firsts, counts, entries) = (
        SELECT array_agg(chain_id ORDER BY nth), array_agg(first + took ORDER BY nth), array_agg(count - took ORDER BY nth),
          sum(count - took)
        FROM (SELECT nth, chain_id, first, count, CASE WHEN nth = part THEN parted ELSE 0 END AS took
              FROM unnest(chain_ids, firsts, counts) WITH ORDINALITY AS each (chain_id, first, count, nth)
              WHERE nth > done OR chain_id = ANY (CAST(:aside AS uuid[]))) AS rest)
      FROM begun WHERE tenant = :tenant AND log_pending.id > :floor AND log_pending.id <= :last
        AND begun.id = log_pending.id AND NOT begun.finished)"""

# By chain, the entries of each in their order: so entries are found, and leaves indexed, side by side. A log begins with the
# first row, which names the log that it follows. All hashes come in one string, because that many rows would take longer to
# read than to hash.
_PLACED = """,
    run AS (
      SELECT chain_id, min(first) AS first, max(first + take) - 1 AS last, CASE WHEN :size = 0 THEN min(id) END AS turn
      FROM span GROUP BY chain_id ORDER BY turn, chain_id),
    taken AS MATERIALIZED (
      SELECT :size + row_number() OVER (ORDER BY turn, entry.chain_id, entry.seq) - 1 AS position,
        entry.chain_id, entry.seq, entry.hash
      FROM run JOIN entry ON entry.chain_id = run.chain_id AND entry.seq BETWEEN run.first AND run.last),
    placed AS (
      INSERT INTO leaf (log_id, position, chain_id, seq) SELECT :log, position, chain_id, seq FROM taken)
    SELECT (SELECT CAST(coalesce(sum(take), 0) AS bigint) FROM span),
      (SELECT coalesce(string_agg(hash, '' ORDER BY position), '') FROM taken)"""

# Each one statement, so that all of it sees the same rows.
PLACE = text(_WHOLE + _PLACED)
PLACE_PART = text(_PART + _REST + _PLACED)

# The chains of which entries are pending that are not in the ledger, or of which some between others are not pending.
INCOMPLETE = text(
    _PART  # noqa: S608 - constants
    + """
    SELECT chain_id FROM (SELECT chain_id, min(first) AS first, max(first + take) - 1 AS last, sum(take) AS entries
                          FROM span GROUP BY chain_id) AS run
    WHERE entries <> (SELECT count(*) FROM entry WHERE entry.chain_id = run.chain_id AND seq BETWEEN first AND last)"""
)

ROWS: Final = 2000  # looked at in one transaction

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


class Chosen(NamedTuple):
    """The rows to take, up to the id `last`, None if there are none; whether all of them fit, and whether there are more."""

    last: int | None
    fit: bool
    more: bool


def lock(conn: Connection, choice: Choice, frozen: float) -> tuple[Log, Chosen] | None:
    """Locks the tenant's positions until the transaction ends; gives its newest log, which is made if there is none.

    None when another process has the lock. `frozen`: the seconds that this process may stand still in the transaction.
    """
    given = {"tenant": choice.tenant}
    settings = {"frozen": f"{int(frozen * 1000)}ms"}
    asked: list[Query] = [(SETTINGS, settings), (LOCK, given), (NEWEST_LOG, given), (CHOOSE, {**_given(choice), "rows": ROWS})]
    _, ((locked,),), found, (chosen,) = together(conn, asked)
    if not locked:
        return None
    return Log(*(found or together(conn, [(MAKE_LOG, given)])[0])[0]), Chosen(*chosen)


def place(conn: Connection, log: Log, choice: Choice, chosen: Chosen) -> tuple[int, bytes]:
    """Gives pending entries the positions from the log's size on, and removes them from what is pending.

    The number of entries, and the hashes of those that are in the ledger, one after another.
    """
    statement = PLACE if chosen.fit and not choice.aside else PLACE_PART
    given = {**_given(choice), "last": chosen.last, "size": log.size, "log": log.id}
    ((entries, hashes),) = together(conn, [(statement, given)], binary=True)[0]
    return entries, bytes(hashes)


def incomplete(conn: Connection, choice: Choice) -> list[str]:
    """The chains, as 32 hex digits, that lack entries of those pending. Call it before `place`, or after a rollback."""
    last = conn.execute(CHOOSE, {**_given(choice), "rows": ROWS}).one()[0]
    return [chain_id.hex for (chain_id,) in conn.execute(INCOMPLETE, {**_given(choice), "last": last})]


def grow(conn: Connection, log: Log, size: int, frontier: bytes) -> bool:
    """Moves the log to its new size; False if another has moved it."""
    return bool(together(conn, [(GROW, {"size": size, "frontier": frontier, "log": log.id, "before": log.size})])[0])


def _given(choice: Choice) -> Mapping[str, object]:
    return {**choice._asdict(), "aside": plain(choice.aside)}
