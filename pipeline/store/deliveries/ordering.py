"""Statements that keep an ordered endpoint's deliveries in turn: of each subject one at a time, the others without a time.

Who has the turn has a time of its next attempt, or a lease; a unique index refuses a second one. The turn is passed on in the
transaction in which its holder came to its end. Whoever plans holds the head of the chain, and whoever passes on shares it, so
that no delivery is planned to wait for one that has just ended.
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, text

Pair = tuple[int, UUID]  # an endpoint, and a chain

# Read after the heads are locked: what was settled before is seen, and what is settled later waits for this transaction.
BUSY = text("""
    SELECT asked.endpoint_id, asked.chain_id
    FROM unnest(CAST(:endpoints AS int[]), CAST(:chains AS uuid[])) AS asked (endpoint_id, chain_id)
    WHERE (
      SELECT true FROM delivery WHERE delivery.endpoint_id = asked.endpoint_id AND delivery.chain_id = asked.chain_id
      AND ordered AND state IN ('pending', 'leased', 'paused') LIMIT 1)""")

# In the order in which whoever appends locks them.
SHARE_HEADS = text("""
    SELECT FROM chain WHERE chain_id = ANY(CAST(:chains AS uuid[])) ORDER BY key FOR SHARE""")

# A subquery with a limit is never made a join: on a table that was never analysed, that would read every backlog.
_NOBODY_IN_TURN = """(
      SELECT true FROM delivery AS other WHERE other.endpoint_id = following.endpoint_id AND other.chain_id = following.chain_id
      AND other.ordered AND (other.state = 'leased' OR other.next_attempt_at IS NOT NULL) LIMIT 1) IS NULL"""

# To the first of the chain that is not at its end, one step in an index of those: what was replayed comes before what came
# after it. If the first is paused, nobody's turn comes.
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

# A loose scan of chains in which something waits, a bounded number from a place on. What waits first in its chain, with
# nothing before it that has to come first, gets the turn.
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
    """Those of `pairs` in which something has the turn or waits for it. The heads of the chains must be locked."""
    if not pairs:
        return set()
    endpoints, chains = zip(*pairs, strict=True)
    return {(row[0], row[1]) for row in conn.execute(BUSY, {"endpoints": list(endpoints), "chains": list(chains)})}


def pass_on(conn: Connection, left: Iterable[Pair], now: datetime) -> set[int]:
    """Gives the turn to whoever is first, in the pairs in which this transaction has let it go; returns at which endpoints.

    Holds the chains' heads, shared, until the transaction ends.
    """
    pairs = sorted(set(left))
    if not pairs:
        return set()
    endpoints, chains = (list(column) for column in zip(*pairs, strict=True))
    conn.execute(SHARE_HEADS, {"chains": list(set(chains))})
    return set(conn.execute(PASS_ON, {"endpoints": endpoints, "chains": chains, "now": now}).scalars())


def open_turns(conn: Connection, after: Pair, now: datetime, limit: int) -> tuple[set[int], Pair]:
    """Gives the turn in `limit` of the chains behind `after` in which something waits and nothing has it.

    That is so after what was paused is released, or an endpoint was made ordered. Returns at which endpoints, and the last
    chain that was looked at, to go on behind; `START` when there are no more.
    """
    asked = {"endpoint_id": after[0], "chain": after[1], "limit": limit, "now": now}
    row = conn.execute(OPEN, asked).one_or_none()
    return (set(row.opened or ()), (row.endpoint_id, row.chain_id)) if row else (set(), START)
