"""Statements that bury what cannot go on, and take it out again when somebody has decided about it."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, text

from pipeline.errors import Unreadable
from pipeline.formats.dead_letter import message_of, tag, untag
from pipeline.store.dead_letters.dead_letter_list import CHOSEN, DeadLetterFilter
from pipeline.store.storable_text import storable
from schemas.dead_letter import DeadLetter, Stage
from schemas.message import Message

# In the transaction of the batch or settlement it comes from: what is acked is either recorded or buried.
BURY = text("""
    INSERT INTO dead_letter (stage, reason, detail, error, tenant, source, endpoint_id, delivery_id, event_id, routing_key,
                             content_type, headers, body, blob, attempts, first_at, last_at)
    VALUES (:stage, :reason, :detail, :error, :tenant, :source, :endpoint_id, :delivery_id, :event_id, :routing_key,
            :content_type, CAST(:headers AS json), :body, :blob, :attempts, :first_at, :now)""")

# What nothing could be made of is tried again when its lease ends, so it may come often: one open letter counts the times.
NOTE_FAILED = text("""
    WITH known AS (
      UPDATE dead_letter SET attempts = attempts + 1, last_at = :now, detail = :detail, error = :error
      WHERE delivery_id = :delivery_id AND stage = 'actor' AND state = 'open' RETURNING id)
    INSERT INTO dead_letter (stage, reason, detail, error, tenant, source, endpoint_id, delivery_id, first_at, last_at)
    SELECT 'actor', 'internal', :detail, :error, delivery.tenant, content.source, endpoint_id, delivery.id, :now, :now
    FROM delivery LEFT JOIN content ON content.chain_id = delivery.chain_id AND content.seq = delivery.seq
    WHERE delivery.id = :delivery_id AND NOT EXISTS (SELECT FROM known)""")

# Oldest first. What another run has in hand is its own: two at once share the work and do nothing twice.
_TAKE = """
    SELECT dead_letter.id, stage, delivery_id, coalesce(octet_length(body), 0) AS size,
           coalesce(endpoint.state = 'removed', false) AS unreachable
    FROM dead_letter LEFT JOIN endpoint ON endpoint.id = dead_letter.endpoint_id
    WHERE dead_letter.id > :after AND dead_letter.id <= :last AND dead_letter.state = 'open' AND {chosen}
    ORDER BY dead_letter.id LIMIT :limit FOR UPDATE OF dead_letter SKIP LOCKED"""
TAKE = text(_TAKE.format(chosen=CHOSEN))

# Apart, so that the bodies can be counted before they are read.
MESSAGES = text("SELECT id, routing_key, headers, body FROM dead_letter WHERE id = ANY(CAST(:ids AS bigint[])) ORDER BY id")

DECIDE = text("""
    UPDATE dead_letter SET state = :state, decided_at = :now, decided_by = :who
    WHERE id = ANY(CAST(:ids AS bigint[])) AND state = 'open'""")

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


def note_failed(conn: Connection, delivery_id: int, error: str, detail: str, now: datetime) -> bool:
    """Keeps that an actor failed at a delivery for no known reason, once more; whether that is a new dead letter."""
    asked = {"delivery_id": delivery_id, "error": error, "detail": storable(detail), "now": now}
    return conn.execute(NOTE_FAILED, asked).rowcount > 0


def take(conn: Connection, wanted: DeadLetterFilter, after: int, last: int, limit: int) -> list[Taken]:
    """At most `limit` open ones with ids above `after` and up to `last`, locked until the transaction ends."""
    asked = {**asdict(wanted), "after": after, "last": last, "limit": limit}
    return [Taken(*row) for row in conn.execute(TAKE, asked)]


def messages(conn: Connection, ids: Sequence[int]) -> dict[int, Message]:
    """The messages that became the dead letters, as they came; those that cannot be made of what is kept are left out."""
    found = {}
    for row in conn.execute(MESSAGES, {"ids": list(ids)}):
        with suppress(Unreadable):
            found[row.id] = message_of(row.routing_key, untag(row.headers), row.body)
    return found


def decide(conn: Connection, ids: Sequence[int], state: Literal["replayed", "discarded"], now: datetime, who: str) -> int:
    """Closes those that are open; returns how many."""
    return conn.execute(DECIDE, {"ids": list(ids), "state": state, "now": now, "who": who}).rowcount


def count_decided(conn: Connection, before: datetime) -> int:
    """How many were replayed or discarded before then."""
    return int(conn.execute(COUNT_DECIDED, {"before": before}).scalar_one())


def delete_decided(conn: Connection, before: datetime, limit: int) -> int:
    """Deletes at most `limit` of those, the oldest decisions first; returns how many."""
    return conn.execute(DELETE_DECIDED, {"before": before, "limit": limit}).rowcount


def _row(letter: DeadLetter, now: datetime) -> dict[str, Any]:
    names = ("stage", "reason", "endpoint_id", "delivery_id", "attempts", "body", "blob")
    texts = ("detail", "error", "tenant", "source", "event_id", "routing_key", "content_type")
    return {
        **{name: getattr(letter, name) for name in names},
        **{name: storable(getattr(letter, name)) for name in texts},
        "headers": json.dumps(tag(letter.headers)),
        "first_at": letter.first_at or now,
        "now": now,
    }
