"""Statements on deliveries that are dead, to send what failed since a time once more."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

# Along the index of what one endpoint has not received; discarded deliveries were given up on purpose.
_FAILED = """endpoint_id = :endpoint_id AND state = 'dead' AND created_at >= :since
      AND created_at < coalesce(CAST(:until AS timestamptz), 'infinity')"""

COUNT = text(f"SELECT count(*), min(created_at), max(created_at), max(id) FROM delivery WHERE {_FAILED}")  # noqa: S608 - constants

# Oldest first.
SAMPLE = text(f"SELECT id FROM delivery WHERE {_FAILED} ORDER BY created_at, id LIMIT :limit")  # noqa: S608 - constants
TAKE = text(f"""
    SELECT id, created_at FROM delivery
    WHERE {_FAILED} AND (created_at, id) > (:after, :after_id) AND created_at <= :newest AND id <= :last
    ORDER BY created_at, id LIMIT :limit FOR UPDATE SKIP LOCKED""")  # noqa: S608 - constants

CLOSE = text("""
    UPDATE dead_letter SET state = 'replayed', decided_at = :now, decided_by = :who
    WHERE delivery_id = ANY(CAST(:ids AS bigint[])) AND state = 'open' AND stage = 'deliver'""")


@dataclass(frozen=True, slots=True)
class Failed:
    """How many deliveries of an endpoint are dead, when their events were recorded, and the highest id."""

    count: int
    oldest: datetime | None
    newest: datetime | None
    last: int | None


@dataclass(frozen=True, slots=True)
class Span:
    """The deliveries of one endpoint whose events were recorded from `since` on, before `until`."""

    endpoint_id: int
    since: datetime
    until: datetime | None


def _asked(span: Span) -> dict[str, object]:
    return {"endpoint_id": span.endpoint_id, "since": span.since, "until": span.until}


def count(conn: Connection, span: Span) -> Failed:
    """The dead deliveries of a span."""
    return Failed(*conn.execute(COUNT, _asked(span)).one())


def sample(conn: Connection, span: Span, limit: int) -> Sequence[int]:
    """The ids of the oldest of them."""
    return conn.execute(SAMPLE, {**_asked(span), "limit": limit}).scalars().all()


def take(
    conn: Connection, span: Span, after: tuple[datetime, int], last: tuple[datetime, int], limit: int
) -> list[tuple[int, datetime]]:
    """At most `limit` of them after a time and id, up to the newest and the highest id of `last`, locked."""
    bounds = {"after": after[0], "after_id": after[1], "newest": last[0], "last": last[1], "limit": limit}
    return [(row.id, row.created_at) for row in conn.execute(TAKE, {**_asked(span), **bounds})]


def close(conn: Connection, ids: Sequence[int], now: datetime, who: str) -> None:
    """Closes the dead letters of these deliveries, which are tried again."""
    conn.execute(CLOSE, {"ids": list(ids), "now": now, "who": who})
