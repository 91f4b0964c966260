"""Statements that fill the search index from what the sequencer has positioned, and drop what is no longer searched."""

from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

MOST_TEXT: Final = 500  # characters of a type, source, id or subject that are in the index

# For this transaction only. COMMIT does not wait for the disk: what a crash of Postgres takes is copied again. By index
# whatever the statistics say: a plan made for a small table would scan a large one.
SETTINGS = text("""
    SELECT set_config(name, value, true) FROM (VALUES
      ('synchronous_commit', 'off'), ('lock_timeout', '2s'), ('enable_seqscan', 'off'), ('enable_hashjoin', 'off'),
      ('enable_mergejoin', 'off'), ('jit', 'off')) AS local (name, value)""")

# Until the transaction ends, so that one process at a time copies, and none is waited for.
LEAD = text("SELECT pg_try_advisory_xact_lock(24852988478448748)")

# The triggers of erasures take it too (migration 0021). The statements after this one see what they have committed.
ALONE = text("SELECT pg_advisory_xact_lock(24852988478448747)")

BEHIND = text("""
    SELECT log.id FROM log LEFT JOIN search_progress AS progress ON progress.log_id = log.id
    WHERE log.state = 'open' AND log.size > coalesce(progress.position, 0) ORDER BY random() LIMIT :most""")

STANDING = text("""
    SELECT log.size, coalesce(progress.position, 0) AS position
    FROM log LEFT JOIN search_progress AS progress ON progress.log_id = log.id WHERE log.id = :log AND log.state = 'open'""")

# One statement, so that all of it sees the same rows, and its figures are counted once. An entry whose content was erased is
# counted, and not copied.
COPY_EVENTS = text(f"""
    WITH placed AS MATERIALIZED (
      SELECT position, chain_id, seq FROM leaf WHERE log_id = :log AND position >= :first AND position < :end),
    found AS MATERIALIZED (
      SELECT placed.*, kind, timestamptz 'epoch' + entry.at * interval '1 microsecond' AS at,
        left(content.type, {MOST_TEXT}) AS type, left(content.source, {MOST_TEXT}) AS source,
        left(id_of(content.attributes), {MOST_TEXT}) AS event_id
      FROM placed JOIN entry ON entry.chain_id = placed.chain_id AND entry.seq = placed.seq
      LEFT JOIN content ON content.chain_id = placed.chain_id AND content.seq = placed.seq),
    copied AS (
      INSERT INTO event_search (log_id, position, at, chain_id, seq, type, source, event_id)
      SELECT :log, position, at, chain_id, seq, type, source, event_id FROM found
      WHERE kind = 'event' AND type IS NOT NULL ORDER BY position ON CONFLICT DO NOTHING RETURNING 1),
    named AS (
      INSERT INTO subject_search (chain_id, log_id, subject)
      SELECT found.chain_id, :log, left(chain.subject, {MOST_TEXT}) FROM found JOIN chain ON chain.chain_id = found.chain_id
      WHERE found.seq = 0 AND chain.subject IS NOT NULL ON CONFLICT DO NOTHING),
    counted AS (
      INSERT INTO accepted_minute AS counted (log_id, minute, n)
      SELECT :log, date_trunc('minute', at), count(*) FROM found WHERE kind = 'event' AND at >= :kept GROUP BY 2 ORDER BY 2
      ON CONFLICT (log_id, minute) DO UPDATE SET n = counted.n + excluded.n)
    SELECT (SELECT count(*) FROM copied), (SELECT max(at) FROM found)""")  # noqa: S608 - a constant

REACHED = text("""
    INSERT INTO search_progress (log_id, position, at) VALUES (:log, :end, :at)
    ON CONFLICT (log_id) DO UPDATE SET position = excluded.position, at = coalesce(excluded.at, search_progress.at)""")

# A new incarnation of a log positions all entries again, and they are copied again. What is of the former one goes.
CLOSED = text("""
    SELECT log_id FROM search_progress JOIN log ON log.id = log_id WHERE log.state = 'closed' ORDER BY log_id LIMIT 1""")
_DROP = "DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE log_id = :log LIMIT :most))"
DROPS = [text(_DROP.format(table=each)) for each in ("event_search", "accepted_minute")]
DROP_SUBJECTS = text("DELETE FROM subject_search WHERE log_id = :log")
FORGET = text("DELETE FROM search_progress WHERE log_id = :log")

# In this order, each a statement of its own: an id that the first sees was drawn before the second draws its number.
LAST_ID = text("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM delivery_id_seq")
NEXT_WRITER = text("SELECT CAST(CAST(pg_current_xact_id() AS text) AS bigint)")
OLDEST_WRITER = text("SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)")

UPTO = text("SELECT coalesce((SELECT upto FROM delivery_search_progress), 0)")
COPY_DELIVERIES = text("""
    INSERT INTO delivery_search (endpoint_id, id)
    SELECT endpoint_id, id FROM delivery WHERE id > :after AND id <= :upto ORDER BY id ON CONFLICT DO NOTHING""")
REACHED_DELIVERIES = text("""
    INSERT INTO delivery_search_progress (upto) VALUES (:upto) ON CONFLICT (single) DO UPDATE SET upto = excluded.upto""")

LAG = text("""
    SELECT coalesce(sum(log.size - coalesce(progress.position, 0)), 0)
    FROM log LEFT JOIN search_progress AS progress ON progress.log_id = log.id WHERE log.state = 'open'""")


class Copied(NamedTuple):
    """What one step has copied: the rows, and how many positions or ids it went on by; 0 when nothing is left."""

    rows: int
    passed: int


def lead(conn: Connection) -> bool:
    """Whether this transaction is the only one that copies; sets it up for that."""
    conn.execute(SETTINGS)
    return bool(conn.execute(LEAD).scalar_one())


def behind(conn: Connection, most: int) -> list[int]:
    """Some of the logs of which entries are not copied yet, in no order."""
    return list(conn.execute(BEHIND, {"most": most}).scalars())


def copy_events(conn: Connection, log: int, most: int, kept: datetime) -> Copied:
    """Copies the next `most` entries of a log; waits for erasures that are under way.

    Entries are counted by the minute from `kept` on. Raises Postgres' lock_not_available if an erasure takes long.
    """
    conn.execute(ALONE)
    standing = conn.execute(STANDING, {"log": log}).first()
    if standing is None or standing.size <= standing.position:
        return Copied(0, 0)
    end = min(standing.size, standing.position + most)
    given = {"log": log, "first": standing.position, "end": end}
    rows, at = conn.execute(COPY_EVENTS, {**given, "kept": kept}).one()
    conn.execute(REACHED, {"log": log, "end": end, "at": at})
    return Copied(rows, end - standing.position)


def drop_closed(conn: Connection, most: int) -> int:
    """Deletes at most `most` rows of each kind of a log that was followed by another; how many, 0 when there is none."""
    log: int | None = conn.execute(CLOSED).scalar()
    if log is None:
        return 0
    dropped = sum(conn.execute(each, {"log": log, "most": most}).rowcount for each in DROPS)
    if not dropped:
        conn.execute(DROP_SUBJECTS, {"log": log})
        conn.execute(FORGET, {"log": log})
    return dropped + 1


def last_delivery(conn: Connection) -> int:
    """The last number of a delivery that was drawn; its transaction may not have been committed."""
    return int(conn.execute(LAST_ID).scalar_one())


def next_writer(conn: Connection) -> int:
    """A number that is greater than those of all transactions that have begun to write."""
    return int(conn.execute(NEXT_WRITER).scalar_one())


def oldest_writer(conn: Connection) -> int:
    """The number of the oldest transaction that writes, or one that none of them has."""
    return int(conn.execute(OLDEST_WRITER).scalar_one())


def copied_deliveries(conn: Connection) -> int:
    """Up to which number deliveries are copied."""
    return int(conn.execute(UPTO).scalar_one())


def copy_deliveries(conn: Connection, settled: int, most: int) -> Copied:
    """Copies deliveries among the next `most` numbers up to `settled`, below which nothing is added any more."""
    after = copied_deliveries(conn)
    upto = min(settled, after + most)
    if upto <= after:
        return Copied(0, 0)
    rows = conn.execute(COPY_DELIVERIES, {"after": after, "upto": upto}).rowcount
    conn.execute(REACHED_DELIVERIES, {"upto": upto})
    return Copied(rows, upto - after)


def lag(conn: Connection) -> int:
    """How many positioned entries are not copied yet."""
    return int(conn.execute(LAG).scalar_one())
