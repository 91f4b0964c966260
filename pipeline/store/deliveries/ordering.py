"""Statements that keep an ordered endpoint's deliveries in order: for each subject, one at a time has the turn.

The delivery that has the turn has a time of its next attempt, or a lease; a unique index refuses a second one. The others wait
without a time. The turn is passed on in the transaction that ends its holder. A transaction that plans locks the chain's head,
and one that passes on takes a shared lock, so that no delivery is planned to wait for one that has just ended.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.store.array_literals import plain
from pipeline.store.round_trip import Query, together

Pair = tuple[int, UUID]  # an endpoint, and a chain

# Runs after the heads are locked: it sees earlier settlements, and later ones wait for this transaction.
BUSY = text("""
    SELECT asked.endpoint_id, asked.chain_id
    FROM unnest(CAST(:endpoints AS int[]), CAST(:chains AS uuid[])) AS asked (endpoint_id, chain_id)
    WHERE (
      SELECT true FROM delivery WHERE delivery.endpoint_id = asked.endpoint_id AND delivery.chain_id = asked.chain_id
      AND ordered AND state IN ('pending', 'leased', 'paused') LIMIT 1)""")

# In the order in which appends lock them.
SHARE_HEADS = text("""
    SELECT FROM chain WHERE chain_id = ANY(CAST(:chains AS uuid[])) ORDER BY key FOR SHARE""")

# A subquery with a limit never becomes a join, which on a table that was never analysed would read every backlog.
_NOBODY_IN_TURN = """(
      SELECT true FROM delivery AS other WHERE other.endpoint_id = following.endpoint_id AND other.chain_id = following.chain_id
      AND other.ordered AND (other.state = 'leased' OR other.next_attempt_at IS NOT NULL) LIMIT 1) IS NULL"""

# To the chain's first unfinished delivery, one step in an index of those: a replayed one precedes those with higher numbers.
# If the first is paused, none gets the turn.
PASS_ON = text(f"""
    UPDATE delivery SET next_attempt_at = :now
    FROM (
      SELECT following.* FROM unnest(CAST(:endpoints AS int[]), CAST(:chains AS uuid[])) AS free (endpoint_id, chain_id)
      CROSS JOIN LATERAL (
        SELECT id, endpoint_id, chain_id, state FROM delivery
        WHERE endpoint_id = free.endpoint_id AND chain_id = free.chain_id
        AND ordered AND state IN ('pending', 'leased', 'paused')
        ORDER BY seq LIMIT 1) AS following
      WHERE following.state = 'pending' AND {_NOBODY_IN_TURN}) AS next
    WHERE delivery.id = next.id AND delivery.state = 'pending' AND delivery.next_attempt_at IS NULL
    RETURNING delivery.endpoint_id""")  # noqa: S608 - put together from constants

# A loose scan of a bounded number of chains with waiting deliveries, from a given position. The first waiting delivery of a
# chain gets the turn, if no unfinished one precedes it.
OPEN = text(f"""
    WITH RECURSIVE first AS (
      (SELECT endpoint_id, chain_id, id, seq, 1 AS number FROM delivery
       WHERE state = 'pending' AND next_attempt_at IS NULL AND (endpoint_id, chain_id) > (:endpoint_id, CAST(:chain AS uuid))
       ORDER BY endpoint_id, chain_id, seq LIMIT 1)
      UNION ALL
      SELECT following.*, number + 1 FROM first CROSS JOIN LATERAL (
        SELECT endpoint_id, chain_id, id, seq FROM delivery
        WHERE state = 'pending' AND next_attempt_at IS NULL AND (endpoint_id, chain_id) > (first.endpoint_id, first.chain_id)
        ORDER BY endpoint_id, chain_id, seq LIMIT 1) AS following
      WHERE number < :limit),
    opened AS (
      UPDATE delivery SET next_attempt_at = :now FROM first AS following
      WHERE delivery.id = following.id AND delivery.state = 'pending' AND delivery.next_attempt_at IS NULL
      AND {_NOBODY_IN_TURN}
      AND (
        SELECT true FROM delivery AS earlier
        WHERE earlier.endpoint_id = following.endpoint_id AND earlier.chain_id = following.chain_id
        AND earlier.seq < following.seq AND earlier.ordered AND earlier.state IN ('pending', 'leased', 'paused')
        LIMIT 1) IS NULL
      RETURNING delivery.endpoint_id)
    SELECT (SELECT array_agg(DISTINCT endpoint_id) FROM opened) AS opened, first.endpoint_id, first.chain_id
    FROM first ORDER BY number DESC LIMIT 1""")  # noqa: S608 - put together from constants

START: Pair = (0, UUID(int=0))


def busy(conn: Connection, pairs: Collection[Pair]) -> set[Pair]:
    """Those of `pairs` in which a delivery has the turn or waits for it. The heads of the chains must be locked."""
    if not pairs:
        return set()
    endpoints, chains = zip(*pairs, strict=True)
    return {(row[0], row[1]) for row in conn.execute(BUSY, {"endpoints": plain(endpoints), "chains": plain(chains)})}


def pass_on_queries(left: Iterable[Pair], now: datetime) -> list[Query]:
    """The last of these queries gives the turn to the first delivery of each pair in which none has it; see `endpoints`.

    They hold a shared lock on the chains' heads until the transaction ends.
    """
    pairs = sorted(set(left))
    if not pairs:
        return []
    at, chains = zip(*pairs, strict=True)
    passed = (PASS_ON, {"endpoints": plain(at), "chains": plain(chains), "now": now})
    return [(SHARE_HEADS, {"chains": plain(set(chains))}), passed]


def endpoints(rows: Iterable[Sequence[Any]]) -> set[int]:
    """The endpoints in the rows of the last of `pass_on_queries`: something is due there."""
    return {endpoint_id for (endpoint_id,) in rows}


def pass_on(conn: Connection, left: Iterable[Pair], now: datetime) -> set[int]:
    """Gives the turn to the first delivery of each pair whose turn this transaction has freed; returns their endpoints.

    Holds a shared lock on the chains' heads until the transaction ends.
    """
    asked = pass_on_queries(left, now)
    return endpoints(together(conn, asked)[-1]) if asked else set()


def open_turns(conn: Connection, after: Pair, now: datetime, limit: int) -> tuple[set[int], Pair]:
    """Gives the turn in up to `limit` chains after `after` that have waiting deliveries and none that has the turn.

    Such chains exist after paused deliveries are released, or an endpoint is made ordered. Returns the endpoints, and the last
    chain examined, from which to continue; `START` when there are no more.
    """
    asked = {"endpoint_id": after[0], "chain": after[1], "limit": limit, "now": now}
    row = conn.execute(OPEN, asked).one_or_none()
    return (set(row.opened or ()), (row.endpoint_id, row.chain_id)) if row else (set(), START)
