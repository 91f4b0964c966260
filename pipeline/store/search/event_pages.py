"""Statements that search events. Each goes along one index, from a key on, and looks at a bounded number of rows.

Which index, the caller chooses (`Way`): the planner, which trusts its statistics, may walk along all events for a few matches.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy import RowMapping as Row

from pipeline.store.search.indexing import MOST_TEXT

MOST_SCANNED: Final = 5000  # rows of the index that one page looks at
MOST_TYPES: Final = 200  # with one prefix, to be merged
MOST_CHAINS: Final = 200  # of subjects with one prefix, to be read whole,
MOST_OF_CHAINS: Final = 2000  # if they have no more entries than this

Way = Literal["time", "type", "source", "types", "id", "chain", "chains"]

_ROW: Final = "position, at, chain_id, seq, type, source, event_id"
_BACK: Final = "(at, position) < (CAST(:at AS timestamptz), :position) AND at >= CAST(:since AS timestamptz)"
_NEWEST: Final = "at DESC, position DESC"
_WALK: Final = f"SELECT {_ROW} FROM event_search WHERE log_id = :log AND {_BACK} {{more}} ORDER BY {_NEWEST} LIMIT :most"  # noqa: S608
# The entries of chains, from the ledger itself: they need no index, and are found before they have a position. Not by ids.
_ENTRIES: Final = f"""
    SELECT CAST(NULL AS bigint) AS position, timestamptz 'epoch' + entry.at * interval '1 microsecond' AS at, entry.chain_id,
      entry.seq, left(type, {MOST_TEXT}) AS type, left(source, {MOST_TEXT}) AS source, CAST(NULL AS text) AS event_id
    FROM entry JOIN content ON content.chain_id = entry.chain_id AND content.seq = entry.seq
    WHERE kind = 'event' AND """  # noqa: S608 - a constant

#: What each way goes along, and in which order.
_ALONG: Final[Mapping[Way, tuple[str, str]]] = {
    "time": (_WALK.format(more=""), _NEWEST),
    "type": (_WALK.format(more="AND type = :type_low"), _NEWEST),
    "source": (_WALK.format(more="AND source = :source"), _NEWEST),
    # Of each type as many as the page has: what is merged of them is complete. No more conditions may follow.
    "types": (
        "SELECT each.* FROM unnest(CAST(:types AS text[])) AS wanted (wanted) CROSS JOIN LATERAL ("  # noqa: S608
        + _WALK.format(more="AND type = wanted").replace(":most", ":limit")
        + ") AS each",
        _NEWEST,
    ),
    "id": (
        f"""SELECT {_ROW} FROM event_search WHERE log_id = :log AND event_id >= :id_low AND event_id < :id_high
        AND (event_id, position) > (:id, :position) ORDER BY event_id, position LIMIT :most""",  # noqa: S608
        "event_id, position",
    ),
    "chain": (_ENTRIES + "entry.chain_id = :only AND entry.seq < :seq ORDER BY entry.seq DESC LIMIT :most", "seq DESC"),
    "chains": (
        f"""SELECT * FROM ({_ENTRIES} entry.chain_id = ANY(CAST(:chains AS uuid[])) OFFSET 0) AS found
        WHERE (at, chain_id, seq) < (CAST(:at AS timestamptz), CAST(:chain AS uuid), :seq)
        ORDER BY at DESC, chain_id DESC, seq DESC LIMIT :most""",  # noqa: S608
        "at DESC, chain_id DESC, seq DESC",
    ),
}

# The planner removes the conditions whose parameters are null. The last is no EXISTS, which may become a hash of all subjects.
_MATCHES: Final = """
      (CAST(:type_low AS text) IS NULL OR type COLLATE "C" >= :type_low AND type COLLATE "C" < :type_high)
      AND (CAST(:source AS text) IS NULL OR source = :source)
      AND (CAST(:id_low AS text) IS NULL OR event_id COLLATE "C" >= :id_low AND event_id COLLATE "C" < :id_high)
      AND at >= CAST(:since AS timestamptz) AND at < CAST(:until AS timestamptz)
      AND (CAST(:subject_low AS text) IS NULL OR (
        SELECT true FROM subject_search WHERE subject_search.chain_id = each.chain_id AND subject_search.log_id = :log
          AND subject >= :subject_low AND subject < :subject_high LIMIT 1))"""

_PAGE: Final = "SELECT each.* FROM ({along}) AS each WHERE {matches} ORDER BY {order} LIMIT :limit"
PAGES: Final = {
    way: text(_PAGE.format(along=along, matches="true" if way == "types" else _MATCHES, order=order))
    for way, (along, order) in _ALONG.items()
}
#: The last row that a page without enough matches has looked at, if it did not come to the end: its time, and what its place
#: in the order is. Along the time, a type or a source, the index alone tells that.
LASTS: Final = {
    way: text(
        f"SELECT {', '.join(dict.fromkeys(['at', *order.replace(' DESC', '').split(', ')]))} FROM ({along}) AS each"  # noqa: S608
        f" ORDER BY {order} OFFSET :most - 1 LIMIT 1"
    )
    for way, (along, order) in _ALONG.items()
}

LOG = text("""
    SELECT log.id, log.size - coalesce(progress.position, 0) AS behind, progress.at
    FROM log LEFT JOIN search_progress AS progress ON progress.log_id = log.id
    WHERE tenant = :tenant ORDER BY incarnation DESC LIMIT 1""")

# From one type to the next by the index, however many events each has.
TYPES = text("""
    WITH RECURSIVE each (type) AS (
      (SELECT type FROM event_search WHERE log_id = :log AND type >= :type_low AND type < :type_high
       ORDER BY log_id, type LIMIT 1)
      UNION ALL
      SELECT (SELECT event_search.type FROM event_search
              WHERE log_id = :log AND event_search.type > each.type AND event_search.type < :type_high
              ORDER BY log_id, event_search.type LIMIT 1)
      FROM each WHERE each.type IS NOT NULL)
    SELECT type FROM each WHERE type IS NOT NULL LIMIT :most""")

CHAINS = text("""
    SELECT found.chain_id, chain.subject, chain.seq + 1 AS entries FROM (
      SELECT chain_id, subject FROM subject_search WHERE log_id = :log AND subject >= :subject_low AND subject < :subject_high
      ORDER BY subject, chain_id LIMIT :most) AS found
    JOIN chain ON chain.chain_id = found.chain_id""")

DETAILS = text("""
    SELECT wanted.chain_id, wanted.seq, attributes, octet_length(body) AS size, blob, chain.subject, states.states
    FROM unnest(CAST(:chains AS uuid[]), CAST(:seqs AS bigint[])) AS wanted (chain_id, seq)
    LEFT JOIN content ON content.chain_id = wanted.chain_id AND content.seq = wanted.seq
    LEFT JOIN chain ON chain.chain_id = wanted.chain_id
    LEFT JOIN LATERAL (
      SELECT jsonb_object_agg(state, n) AS states FROM (
        SELECT state, count(*) AS n FROM delivery
        WHERE delivery.chain_id = wanted.chain_id AND delivery.seq = wanted.seq GROUP BY state) AS counted
    ) AS states ON true""")


def log(conn: Connection, tenant: str) -> Row | None:
    """The tenant's newest log: its id, how many entries are not in the index, and when the last that is was recorded."""
    return conn.execute(LOG, {"tenant": tenant}).mappings().first()


def types(conn: Connection, log_id: int, low: str, high: str) -> list[str]:
    """The types from `low` on and before `high`; more than `MOST_TYPES` are not all told."""
    return list(conn.execute(TYPES, {"log": log_id, "type_low": low, "type_high": high, "most": MOST_TYPES + 1}).scalars())


def chains(conn: Connection, log_id: int, low: str, high: str) -> Sequence[Row]:
    """The chains of subjects from `low` on and before `high`; more than `MOST_CHAINS` are not all told."""
    given = {"log": log_id, "subject_low": low, "subject_high": high, "most": MOST_CHAINS + 1}
    return conn.execute(CHAINS, given).mappings().all()


def page(conn: Connection, way: Way, given: Mapping[str, Any], limit: int) -> Sequence[Row]:
    """The first `limit` events that match among the `MOST_SCANNED` that come next."""
    return conn.execute(PAGES[way], {**given, "limit": limit, "most": MOST_SCANNED}).mappings().all()


def last_scanned(conn: Connection, way: Way, given: Mapping[str, Any]) -> Row | None:
    """The last of the `MOST_SCANNED` that come next; None if there are fewer."""
    return conn.execute(LASTS[way], {**given, "limit": 0, "most": MOST_SCANNED}).mappings().first()


def details(conn: Connection, keys: Sequence[tuple[UUID, int]]) -> dict[tuple[UUID, int], Row]:
    """The attributes, size, subject and deliveries by state of each of these entries."""
    given = {"chains": [chain for chain, _ in keys], "seqs": [seq for _, seq in keys]}
    return {(row["chain_id"], row["seq"]): row for row in conn.execute(DETAILS, given).mappings()}
