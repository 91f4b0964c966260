"""Statements on the acts of operators (the audit) and on operator events. Rows are added and read, never changed."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import Connection, text
from sqlalchemy import RowMapping as Row

from pipeline.store.storable_text import storable
from schemas.access import Actor, By

Outcome = Literal["refused", "failed"]

#: What an act may be done to, as its filter names it; the first of these is what the audit shows.
_OBJECTS: Final = ("endpoint", "mailbox", "token", "session", "job", "subject", "chain", "id")

# Written before the act, in a transaction of its own: an act whose process is killed stays on record.
WRITE = text("""
    INSERT INTO audit (at, who, act, filter, count, phase, tenant, object, means, principal, role, address, request_id, reason,
                       outcome)
    VALUES (:now, :who, :act, CAST(:filter AS jsonb), :count, :phase, :tenant, :object, :means, :principal, :role, :address,
            :request_id, :reason, :outcome)
    RETURNING id""")

END = text("""
    INSERT INTO audit (at, who, act, filter, count, phase, begun)
    SELECT :now, who, act, filter, :count, 'done', id FROM audit WHERE id = :id""")

ACTOR = text("SELECT who, means, principal, role, address, request_id, reason FROM audit WHERE id = :id")

# An act on many rows is one line: how many were planned, and how many were done if it ended.
_ACT = """
    SELECT act.id, act.at, act.who, act.act, act.filter, act.tenant, act.object, act.means, act.principal, act.role,
           act.address, act.request_id, act.reason, act.outcome, act.cell, act.count AS planned,
           CASE WHEN act.phase = 'done' THEN act.count ELSE ending.count END AS done,
           CASE WHEN act.phase = 'done' THEN act.at ELSE ending.at END AS ended_at
    FROM audit AS act LEFT JOIN audit AS ending ON ending.begun = act.id
    WHERE act.begun IS NULL"""

# Newest first, in pages by id.
ACTS = text(f"""{_ACT} AND act.id < :before
      AND (CAST(:tenant AS text) IS NULL OR act.tenant = :tenant)
      AND (CAST(:since AS timestamptz) IS NULL OR act.at >= :since)
      AND (CAST(:until AS timestamptz) IS NULL OR act.at < :until)
    ORDER BY act.id DESC LIMIT :limit""")

# The last act that had begun by then and had not ended.
UNDER_WAY = text(f"""{_ACT} AND act.who = :who AND act.act = :act AND act.at <= :at AND (ending.at IS NULL OR ending.at >= :at)
    ORDER BY act.id DESC LIMIT 1""")

# Newest first, in pages by id.
EVENTS = text("""
    SELECT event.id, at, event.kind, event.tenant, endpoint.name AS endpoint, source.name AS mailbox, detail, cell
    FROM operator_event AS event LEFT JOIN endpoint ON endpoint.id = endpoint_id LEFT JOIN source ON source.id = source_id
    WHERE event.id < :before
      AND (CAST(:tenant AS text) IS NULL OR event.tenant = :tenant)
      AND (CAST(:since AS timestamptz) IS NULL OR at >= :since)
      AND (CAST(:until AS timestamptz) IS NULL OR at < :until)
    ORDER BY event.id DESC LIMIT :limit""")


def record(
    conn: Connection,
    who: By,
    act: str,
    filter_: Mapping[str, Any],
    count: int,
    now: datetime,
    phase: Literal["begun", "done"],
    outcome: Outcome | None = None,
) -> int:
    """Records an act; returns its id. The caller must end a `begun` one with `end`.

    The tenant, and what it is done to, are those that the filter names.
    """
    actor = Actor(who) if isinstance(who, str) else who
    asked = {
        "who": actor.who,
        "act": act,
        "filter": json.dumps(filter_, default=str),
        "count": count,
        "now": now,
        "phase": phase,
        **{
            name: storable(getattr(actor, name)) or None
            for name in ("means", "principal", "role", "address", "request_id", "reason")
        },
        "tenant": filter_.get("tenant"),
        "object": next((f"{name} {filter_[name]}" for name in _OBJECTS if filter_.get(name) is not None), None),
        "outcome": outcome,
    }
    return int(conn.execute(WRITE, asked).scalar_one())


def end(conn: Connection, id_: int, count: int, now: datetime) -> None:
    """Records the end of an act, and on how many it was done. Raises a unique violation if its end is already recorded."""
    conn.execute(END, {"id": id_, "count": count, "now": now})


def actor(conn: Connection, id_: int) -> Actor:
    """Who began an act."""
    row = conn.execute(ACTOR, {"id": id_}).mappings().one()
    return Actor(**{name: value for name, value in row.items() if value is not None})


def acts(
    conn: Connection, tenant: str | None, since: datetime | None, until: datetime | None, before: int, limit: int
) -> Sequence[Row]:
    """The `limit` newest acts with ids below `before`, on one tenant or on all.

    `done` and `ended_at` are null if one was interrupted, or still runs.
    """
    asked = {"tenant": tenant, "since": since, "until": until, "before": before, "limit": limit}
    return conn.execute(ACTS, asked).mappings().all()


def under_way(conn: Connection, who: str, act: str, at: datetime) -> Row | None:
    """The act of that name that `who` had under way at that time; of two at once, the one that began last."""
    return conn.execute(UNDER_WAY, {"who": who, "act": act, "at": at}).mappings().one_or_none()


def events(
    conn: Connection, tenant: str | None, since: datetime | None, until: datetime | None, before: int, limit: int
) -> Sequence[Row]:
    """The `limit` newest operator events with ids below `before`."""
    asked = {"tenant": tenant, "since": since, "until": until, "before": before, "limit": limit}
    return conn.execute(EVENTS, asked).mappings().all()
