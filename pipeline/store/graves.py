"""Statements on dead letters."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from schemas.deadletter import DeadLetter

# In the transaction of the batch or settlement it comes from: what is acked is either recorded or buried.
BURY = text("""
    INSERT INTO dead_letter (stage, reason, detail, tenant, source, endpoint_id, delivery_id, event_id, routing_key,
                             content_type, headers, body, attempts, first_at, last_at)
    VALUES (:stage, :reason, :detail, :tenant, :source, :endpoint_id, :delivery_id, :event_id, :routing_key,
            :content_type, CAST(:headers AS json), :body, :attempts, :now, :now)""")


def bury(conn: Connection, letters: Iterable[DeadLetter], now: datetime) -> None:
    """Keeps each dead letter, open, with everything that is needed to look at it and to replay it."""
    rows = [_row(letter, now) for letter in letters]
    if rows:
        conn.execute(BURY, rows)


def _row(letter: DeadLetter, now: datetime) -> dict[str, Any]:
    names = ("stage", "reason", "endpoint_id", "delivery_id", "attempts", "body")
    texts = ("detail", "tenant", "source", "event_id", "routing_key", "content_type")
    return {
        **{name: getattr(letter, name) for name in names},
        **{name: _storable(getattr(letter, name)) for name in texts},
        "headers": json.dumps(letter.headers, default=repr).replace("\\u0000", "\\ufffd"),
        "now": now,
    }


def _storable(value: str | None) -> str | None:
    """Text as Postgres can hold it: what came from outside may hold NUL and lone surrogates."""
    return value and value.replace("\x00", "\ufffd").encode(errors="replace").decode()
