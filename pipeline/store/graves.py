"""Statements that bury what cannot go on, and take it out again when somebody has decided about it."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, text

from pipeline.bury import message_of
from pipeline.store import bell, deliveries
from pipeline.store.letters import CHOSEN, Letters
from pipeline.tagged import tag, untag
from schemas.deadletter import DeadLetter, Stage
from schemas.message import Message

# In the transaction of the batch or settlement it comes from: what is acked is either recorded or buried.
BURY = text("""
    INSERT INTO dead_letter (stage, reason, detail, error, tenant, source, endpoint_id, delivery_id, event_id, routing_key,
                             content_type, headers, body, attempts, first_at, last_at)
    VALUES (:stage, :reason, :detail, :error, :tenant, :source, :endpoint_id, :delivery_id, :event_id, :routing_key,
            :content_type, CAST(:headers AS json), :body, :attempts, :first_at, :now)""")

# Oldest first. What another run has in hand is its own: two at once share the work and do nothing twice.
_TAKE = """
    SELECT dead_letter.id, stage, delivery_id, coalesce(octet_length(body), 0) AS size,
           coalesce(endpoint.state = 'removed', false) AS unreachable
    FROM dead_letter LEFT JOIN endpoint ON endpoint.id = dead_letter.endpoint_id
    WHERE dead_letter.id > :after AND dead_letter.id <= :last AND dead_letter.state = 'open' AND {chosen}
    ORDER BY dead_letter.id LIMIT :limit FOR UPDATE OF dead_letter SKIP LOCKED"""
TAKE = text(_TAKE.format(chosen=CHOSEN))

# Apart, so that the bodies can be counted before they are read.
MESSAGES = text("SELECT routing_key, headers, body FROM dead_letter WHERE id = ANY(CAST(:ids AS bigint[])) ORDER BY id")

DECIDE = text("""
    UPDATE dead_letter SET state = :state, decided_at = :now, decided_by = :who
    WHERE id = ANY(CAST(:ids AS bigint[])) AND state = 'open'""")

# Due at once, in its turn where there is an order, or kept while the endpoint is disabled. Schedule and age begin anew, the
# attempts go on being counted.
REVIVE = text("""
    UPDATE delivery SET state = CASE WHEN endpoint.state = 'disabled' THEN 'paused' ELSE 'pending' END,
                        next_attempt_at = CASE WHEN endpoint.state <> 'disabled' AND NOT ordered
                                               THEN CAST(:now AS timestamptz) END,
                        settled_at = NULL, schedule_from = attempts, age_from = :now
    FROM endpoint WHERE endpoint.id = endpoint_id AND delivery.id = ANY(CAST(:ids AS bigint[])) AND delivery.state = 'dead'
    RETURNING endpoint_id, chain_id, ordered""")

# What an actor failed at is not dead: it waits, at the latest for the end of its lease.
HASTEN = text("""
    UPDATE delivery SET next_attempt_at = :now
    WHERE id = ANY(CAST(:ids AS bigint[])) AND state = 'pending' AND next_attempt_at > :now""")

GIVE_UP = text("""
    UPDATE delivery SET state = 'discarded' WHERE id = ANY(CAST(:ids AS bigint[])) AND state = 'dead'""")

COUNT_DECIDED = text("SELECT count(*) FROM dead_letter WHERE state <> 'open' AND decided_at < :before")

# By the database's owner: a worker may not delete.
DELETE_DECIDED = text("""
    DELETE FROM dead_letter WHERE id IN (
      SELECT id FROM dead_letter WHERE state <> 'open' AND decided_at < :before
      ORDER BY decided_at LIMIT :limit FOR UPDATE SKIP LOCKED)""")


@dataclass(frozen=True, slots=True)
class Taken:
    """An open dead letter that this transaction has to itself. `size` in bytes of its body."""

    id: int
    stage: Stage
    delivery_id: int | None
    size: int
    unreachable: bool  # the endpoint of the delivery is removed


def bury(conn: Connection, letters: Iterable[DeadLetter], now: datetime) -> None:
    """Keeps each dead letter, open, with everything that is needed to look at it and to replay it."""
    rows = [_row(letter, now) for letter in letters]
    if rows:
        conn.execute(BURY, rows)


def take(conn: Connection, wanted: Letters, after: int, last: int, limit: int) -> list[Taken]:
    """At most `limit` open ones with ids above `after` and up to `last`, locked until the transaction ends."""
    asked = {**asdict(wanted), "after": after, "last": last, "limit": limit}
    return [Taken(*row) for row in conn.execute(TAKE, asked)]


def messages(conn: Connection, ids: Sequence[int]) -> list[Message]:
    """The messages that became the dead letters, as they came, in the order of `ids`, which must ascend."""
    return [message_of(row.routing_key, untag(row.headers), row.body) for row in conn.execute(MESSAGES, {"ids": list(ids)})]


def decide(conn: Connection, ids: Sequence[int], state: Literal["replayed", "discarded"], now: datetime, who: str) -> int:
    """Closes those that are open; returns how many."""
    return conn.execute(DECIDE, {"ids": list(ids), "state": state, "now": now, "who": who}).rowcount


def revive(conn: Connection, delivery_ids: Sequence[int], now: datetime) -> None:
    """Makes deliveries due at once: dead ones with a fresh schedule, waiting ones as they are. Wakes the relay."""
    if not delivery_ids:
        return
    asked = {"ids": list(delivery_ids), "now": now}
    conn.execute(HASTEN, asked)
    revived = conn.execute(REVIVE, asked).all()
    deliveries.pass_on(conn, {(row.endpoint_id, row.chain_id) for row in revived if row.ordered}, now)
    bell.ring(conn)


def give_up(conn: Connection, delivery_ids: Sequence[int]) -> None:
    """Ends dead deliveries for good."""
    if delivery_ids:
        conn.execute(GIVE_UP, {"ids": list(delivery_ids)})


def count_decided(conn: Connection, before: datetime) -> int:
    """How many were replayed or discarded before then."""
    return int(conn.execute(COUNT_DECIDED, {"before": before}).scalar_one())


def delete_decided(conn: Connection, before: datetime, limit: int) -> int:
    """Deletes at most `limit` of those, the oldest decisions first; returns how many."""
    return conn.execute(DELETE_DECIDED, {"before": before, "limit": limit}).rowcount


def _row(letter: DeadLetter, now: datetime) -> dict[str, Any]:
    names = ("stage", "reason", "endpoint_id", "delivery_id", "attempts", "body")
    texts = ("detail", "error", "tenant", "source", "event_id", "routing_key", "content_type")
    return {
        **{name: getattr(letter, name) for name in names},
        **{name: _storable(getattr(letter, name)) for name in texts},
        "headers": json.dumps(tag(letter.headers)),
        "first_at": letter.first_at or now,
        "now": now,
    }


def _storable(value: str | None) -> str | None:
    """Text as Postgres can hold it: what came from outside may hold NUL and lone surrogates."""
    return value and value.replace("\x00", "\ufffd").encode(errors="replace").decode()
