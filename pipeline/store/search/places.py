"""Statements that find one thing: an entry, a delivery, and whatever has an id."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy import RowMapping as Row

from pipeline.store.search.indexing import MOST_TEXT

# A page is a few rows from the front of an index, in its order; the planner, which may take a table for small, would read and
# sort all that match.
ALONG_INDEXES = text("""
    SELECT set_config(name, value, true) FROM (VALUES
      ('enable_seqscan', 'off'), ('enable_bitmapscan', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'),
      ('jit', 'off'), ('max_parallel_workers_per_gather', '0')) AS local (name, value)""")

EVENT = text("""
    SELECT entry.chain_id, entry.seq, entry.tenant, entry.at, kind, entry.hash, prev_hash, attributes, octet_length(body)
      AS size, blob, chain.subject, chain.seq AS head, place.position, place.incarnation
    FROM entry LEFT JOIN content ON content.chain_id = entry.chain_id AND content.seq = entry.seq
    LEFT JOIN chain ON chain.chain_id = entry.chain_id
    LEFT JOIN LATERAL (
      SELECT position, incarnation FROM leaf JOIN log ON log.id = leaf.log_id
      WHERE leaf.chain_id = entry.chain_id AND leaf.seq = entry.seq ORDER BY incarnation DESC LIMIT 1) AS place ON true
    WHERE entry.chain_id = :chain AND entry.seq = :seq AND entry.tenant = :tenant""")

CONTENT = text("""
    SELECT attributes, body, blob FROM entry
    JOIN content ON content.chain_id = entry.chain_id AND content.seq = entry.seq
    WHERE entry.chain_id = :chain AND entry.seq = :seq AND entry.tenant = :tenant""")

# The two rows of an event in the log's index are one: it may be in several incarnations.
BY_EVENT_ID = text("""
    SELECT log.tenant, each.chain_id, each.seq, each.at FROM log CROSS JOIN LATERAL (
      SELECT chain_id, seq, at FROM event_search WHERE log_id = log.id AND event_id = :id
      ORDER BY event_id, position LIMIT :most) AS each
    WHERE log.state = 'open' AND (CAST(:tenant AS text) IS NULL OR log.tenant = :tenant) LIMIT :most""")

BY_CHAIN = text("""
    SELECT tenant, chain_id, subject, seq FROM chain
    WHERE chain_id = :chain AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant)""")

# By the copies of subjects, of whatever incarnation of the log; the head has the whole subject.
BY_SUBJECT = text(f"""
    SELECT chain.chain_id FROM log
    JOIN subject_search ON log_id = log.id AND subject_search.subject = left(CAST(:subject AS text), {MOST_TEXT})
    JOIN chain ON chain.chain_id = subject_search.chain_id
    WHERE log.tenant = :tenant AND chain.tenant = :tenant AND chain.subject = :subject LIMIT 1""")  # noqa: S608 - a constant

BY_NUMBER = text("""
    SELECT 'delivery' AS kind, id, tenant, state FROM delivery
    WHERE id = :number AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
    UNION ALL
    SELECT 'dead_letter', id, tenant, state FROM dead_letter
    WHERE id = :number AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
    UNION ALL
    SELECT 'job', id, tenant, state FROM job WHERE id = :number AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant)""")


def along_indexes(conn: Connection) -> None:
    """Makes the statements of this transaction go along indexes, whatever the statistics of the tables say."""
    conn.execute(ALONG_INDEXES)


def event(conn: Connection, tenant: str, chain: UUID, seq: int) -> Row | None:
    """An entry of the tenant, without its body."""
    return conn.execute(EVENT, {"tenant": tenant, "chain": chain, "seq": seq}).mappings().first()


def content(conn: Connection, tenant: str, chain: UUID, seq: int) -> Row | None:
    """The content of an entry of the tenant; None if there is no such entry, or it has none."""
    return conn.execute(CONTENT, {"tenant": tenant, "chain": chain, "seq": seq}).mappings().first()


def by_event_id(conn: Connection, tenant: str | None, id_: str, most: int) -> Sequence[Row]:
    """The events with this id that are in the index, of one tenant or of all."""
    return conn.execute(BY_EVENT_ID, {"tenant": tenant, "id": id_, "most": most}).mappings().all()


def by_chain(conn: Connection, tenant: str | None, chain: UUID) -> Sequence[Row]:
    """The chain with this id, of one tenant or of all."""
    return conn.execute(BY_CHAIN, {"tenant": tenant, "chain": chain}).mappings().all()


def chain_of(conn: Connection, tenant: str, subject: str) -> UUID | None:
    """The chain of a subject, by the index of subjects; None if it has no entries, or none of them is copied yet."""
    found: UUID | None = conn.execute(BY_SUBJECT, {"tenant": tenant, "subject": subject}).scalar()
    return found


def by_number(conn: Connection, tenant: str | None, number: int) -> Sequence[Row]:
    """The delivery, the dead letter and the job with this number, of one tenant or of all."""
    return conn.execute(BY_NUMBER, {"tenant": tenant, "number": number}).mappings().all()
