"""Statements that bury what cannot be processed further, and that take dead letters for replay or discard."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, text

from pipeline.errors import Unreadable
from pipeline.formats.dead_letter import message_of, tag, untag
from pipeline.store.dead_letters.dead_letter_list import CHOSEN, conditions
from pipeline.store.storable_text import storable
from schemas.dead_letter import DeadLetter, DeadLetterFilter, Stage
from schemas.message import Message

# In the transaction of the batch or settlement: what is acked is either recorded or buried.
BURY = text("""
    INSERT INTO dead_letter (stage, reason, detail, error, tenant, source, endpoint_id, delivery_id, event_id, routing_key,
                             content_type, headers, body, blob, attempts, first_at, last_at)
    VALUES (:stage, :reason, :detail, :error, :tenant, :source, :endpoint_id, :delivery_id, :event_id, :routing_key,
            :content_type, CAST(:headers AS json), :body, :blob, :attempts, :first_at, :now)""")

# A delivery at which an actor failed is tried again when its lease ends, perhaps often: one open dead letter counts the times.
NOTE_FAILED = text("""
    WITH known AS (
      UPDATE dead_letter SET attempts = attempts + 1, last_at = :now, detail = :detail, error = :error
      WHERE delivery_id = :delivery_id AND stage = 'actor' AND state = 'open' RETURNING id)
    INSERT INTO dead_letter (stage, reason, detail, error, tenant, source, endpoint_id, delivery_id, first_at, last_at)
    SELECT 'actor', 'internal', :detail, :error, delivery.tenant, content.source, endpoint_id, delivery.id, :now, :now
    FROM delivery LEFT JOIN content ON content.chain_id = delivery.chain_id AND content.seq = delivery.seq
    WHERE delivery.id = :delivery_id AND NOT EXISTS (SELECT FROM known)""")

# Oldest first. Rows that another run has locked are skipped: two concurrent runs share the work and do nothing twice.
_TAKE = """
    SELECT dead_letter.id, stage, delivery_id, coalesce(octet_length(body), 0) AS size,
           coalesce(endpoint.state = 'removed', false) AS unreachable
    FROM dead_letter LEFT JOIN endpoint ON endpoint.id = dead_letter.endpoint_id
    WHERE dead_letter.id > :after AND dead_letter.id <= :last AND dead_letter.state = 'open' AND {chosen}
    ORDER BY dead_letter.id LIMIT :limit FOR UPDATE OF dead_letter SKIP LOCKED"""
TAKE = text(_TAKE.format(chosen=CHOSEN))

# A statement of its own, so that the size of the bodies is known before they are read.
MESSAGES = text("SELECT id, routing_key, headers, body FROM dead_letter WHERE id = ANY(CAST(:ids AS bigint[])) ORDER BY id")

DECIDE = text("""
    UPDATE dead_letter SET state = :state, decided_at = :now, decided_by = :who
    WHERE id = ANY(CAST(:ids AS bigint[])) AND state = 'open'""")

COUNT_DECIDED = text("SELECT count(*) FROM dead_letter WHERE state <> 'open' AND decided_at < :before")

# Only the database's owner may run this: workers have no DELETE privilege.
DELETE_DECIDED = text("""
    DELETE FROM dead_letter WHERE id IN (
      SELECT id FROM dead_letter WHERE state <> 'open' AND decided_at < :before
      ORDER BY decided_at LIMIT :limit FOR UPDATE SKIP LOCKED)""")


@dataclass(frozen=True, slots=True)
class Taken:
    """An open dead letter that this transaction has locked. `size` is its body's, in bytes."""

    id: int
    stage: Stage
    delivery_id: int | None
    size: int
    unreachable: bool  # the endpoint of the delivery is removed


def bury(conn: Connection, letters: Iterable[DeadLetter], now: datetime) -> None:
    """Stores each dead letter as open, with everything needed to inspect and replay it."""
    rows = [_row(letter, now) for letter in letters]
    if rows:
        conn.execute(BURY, rows)


def note_failed(conn: Connection, delivery_id: int, error: str, detail: str, now: datetime) -> bool:
    """Records that an actor failed at a delivery for an unknown reason; returns whether a row was added."""
    asked = {"delivery_id": delivery_id, "error": error, "detail": storable(detail), "now": now}
    return conn.execute(NOTE_FAILED, asked).rowcount > 0


def take(conn: Connection, wanted: DeadLetterFilter, after: int, last: int, limit: int) -> list[Taken]:
    """At most `limit` open dead letters with ids above `after` and up to `last`, locked until the transaction ends."""
    asked = {**conditions(conn, wanted), "after": after, "last": last, "limit": limit}
    return [Taken(*row) for row in conn.execute(TAKE, asked)]


def messages(conn: Connection, ids: Sequence[int]) -> dict[int, Message]:
    """The original messages of these dead letters, by id; those that cannot be restored are left out."""
    found = {}
    for row in conn.execute(MESSAGES, {"ids": list(ids)}):
        with suppress(Unreadable):
            found[row.id] = message_of(row.routing_key, untag(row.headers), row.body)
    return found


def decide(conn: Connection, ids: Sequence[int], state: Literal["replayed", "discarded"], now: datetime, who: str) -> int:
    """Closes those of the dead letters that are open; returns how many."""
    return conn.execute(DECIDE, {"ids": list(ids), "state": state, "now": now, "who": who}).rowcount


def count_decided(conn: Connection, before: datetime) -> int:
    """The number of dead letters replayed or discarded before then."""
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
