"""The chunks of jobs: each acts on the next rows in one transaction, and says where the following chunk begins."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection

from ops.admin import endpoints, replay
from ops.admin.bulk import Named
from ops.admin.jobs.arguments import Arguments, DeadLetters, FailedSince, Missed, Waiting
from ops.admin.read_session import known_endpoint
from ops.admin.replay import Decision, Publish
from ops.admin.undelivered import endpoints_of
from pipeline.store.dead_letters import decisions
from pipeline.store.deliveries import redelivery, undelivered
from pipeline.store.deliveries.redelivery import Span
from schemas.job import JobKind


@dataclass(frozen=True, slots=True)
class Chunk:
    """Which job the chunk is of, and where it begins. `who` decides about dead letters."""

    tenant: str | None
    arguments: Arguments
    place: Mapping[str, Any]
    who: str
    publish: Publish


@dataclass(frozen=True, slots=True)
class Moved:
    """How many rows were processed and left, and where the next chunk begins."""

    done: int
    place: Mapping[str, Any]
    left: Mapping[str, int] = field(default_factory=Counter)


Step = Callable[[Chunk, Connection, int], Moved | None]
"""Processes at most that many rows in the transaction; None when none are left."""


def _decide(discards: bool, chunk: Chunk, conn: Connection, size: int) -> Moved | None:
    assert isinstance(chunk.arguments, DeadLetters)
    decision = Decision(chunk.arguments.wanted(chunk.tenant), (), chunk.who)
    decision.after, decision.last = chunk.place["after"], chunk.place["last"]
    done = replay.discard(decision, conn, size) if discards else replay.replay(decision, chunk.publish, conn, size)
    return None if done is None else Moved(done, {**chunk.place, "after": decision.after}, decision.left)


def _settle_missed(discards: bool, chunk: Chunk, conn: Connection, size: int) -> Moved | None:
    assert isinstance(chunk.arguments, Missed)
    if chunk.place["until"] is None:
        return None
    named = Named(str(chunk.tenant), chunk.arguments.endpoint, chunk.who)
    until = datetime.fromisoformat(chunk.place["until"])
    done = (endpoints.discarding if discards else endpoints.replaying)(named, until)(conn, size)
    return None if done is None else Moved(done, chunk.place)


def _redeliver(chunk: Chunk, conn: Connection, size: int) -> Moved | None:
    given, place = chunk.arguments, chunk.place
    assert isinstance(given, FailedSince)
    if place["newest"] is None:
        return None
    id_ = known_endpoint(conn, str(chunk.tenant), given.endpoint)
    after = datetime.fromisoformat(place["after"][0]), int(place["after"][1])
    last = datetime.fromisoformat(place["newest"]), int(place["last"])
    taken = redelivery.take(conn, Span(id_, given.since, given.until), after, last, size)
    if not taken:
        return None
    now, ids = datetime.now(UTC), [each[0] for each in taken]
    decisions.revive(conn, ids, now)
    redelivery.close(conn, ids, now, chunk.who)
    return Moved(len(ids), {**place, "after": [taken[-1][1].isoformat(), taken[-1][0]]})


def _move_up(chunk: Chunk, conn: Connection, size: int) -> Moved | None:
    given, place = chunk.arguments, chunk.place
    assert isinstance(given, Waiting)
    ids = list(endpoints_of(conn, str(chunk.tenant), given.endpoint).values())
    counted_at, span = datetime.fromisoformat(place["now"]), (int(place["after"]), int(place["last"]))
    moved = undelivered.move_up(conn, ids, given.ids, counted_at, span, size)
    return Moved(len(moved), {**place, "after": moved[-1]}) if moved else None


#: What a console process can do. Erasing needs the rights of the eraser, which has a step of its own.
STEPS: Final[Mapping[JobKind, Step]] = {
    "replay": partial(_decide, False),
    "discard": partial(_decide, True),
    "endpoint_replay": partial(_settle_missed, False),
    "endpoint_discard": partial(_settle_missed, True),
    "redeliver": _redeliver,
    "retry": _move_up,
}
