"""Statements on the health of endpoints: the breaker, the rate limit's token bucket, and operator events."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import Connection, Row, text

from pipeline.store.array_literals import plain
from pipeline.store.round_trip import Query, together
from pipeline.store.storable_text import storable
from schemas.endpoint_health import Health

EventKind = Literal["endpoint_disabled", "endpoint_enabled", "breaker_opened", "breaker_closed"]

_NAMES: Final = tuple(field.name for field in fields(Health))

# Sorted, like every lock on these rows, so that two settlements of the same endpoints cannot deadlock.
MAKE = text("""
    INSERT INTO endpoint_health (endpoint_id) SELECT id FROM unnest(CAST(:ids AS int[])) AS made (id) ORDER BY id
    ON CONFLICT (endpoint_id) DO NOTHING""")
LOCK = text(f"""
    SELECT endpoint_id, {", ".join(_NAMES)} FROM endpoint_health WHERE endpoint_id = ANY(CAST(:ids AS int[]))
    ORDER BY endpoint_id FOR UPDATE""")  # noqa: S608 - names

# Most endpoints never failed: neither has a row, nor is anything written of their successes. The last condition is
# `breaker.is_clean`.
LOCK_CONCERNED = text(f"""
    SELECT endpoint_id, {", ".join(_NAMES)} FROM endpoint_health
    WHERE endpoint_id = ANY(CAST(:failed AS int[])) OR endpoint_id = ANY(CAST(:worked AS int[])) AND (
      failing_since IS NOT NULL OR window_from IS NOT NULL OR throttles > 0 OR breaker <> 'closed')
    ORDER BY endpoint_id FOR UPDATE""")  # noqa: S608 - names

# A claimant never waits: endpoints whose row is locked are claimed by the holder, or in the next round.
LOCK_FREE = text("""
    SELECT endpoint_id FROM endpoint_health WHERE endpoint_id = ANY(CAST(:ids AS int[])) FOR UPDATE SKIP LOCKED""")

WRITE = text(
    f"UPDATE endpoint_health SET {', '.join(f'{name} = :{name}' for name in _NAMES)}, changed_at = :now"  # noqa: S608 - names
    " WHERE endpoint_id = :endpoint_id"
)

# A claimant whose clock is behind must not move tokens_at back, or the time in between would fill the bucket twice.
TAKE_TOKENS = text("""
    UPDATE endpoint_health SET tokens = :tokens, tokens_at = greatest(tokens_at, :now) WHERE endpoint_id = :endpoint_id""")

ENABLED = text("UPDATE endpoint_health SET enabled_at = :now WHERE endpoint_id = :endpoint_id")

NOTE = text("""
    INSERT INTO operator_event (at, kind, tenant, endpoint_id, detail)
    SELECT :now, :kind, tenant.name, endpoint.id, :detail FROM endpoint JOIN tenant ON tenant.id = tenant_id
    WHERE endpoint.id = :endpoint_id""")

# Degraded: it accepts events, but failed recently, or asked to be sent nothing for a while.
DESTINATIONS = text("""
    SELECT CASE WHEN state = 'disabled' THEN 'paused'
                WHEN breaker <> 'closed' THEN 'open'
                WHEN failing_since IS NOT NULL OR window_from > :since OR not_before > :now THEN 'degraded'
                ELSE 'healthy' END AS condition, count(*)
    FROM endpoint LEFT JOIN endpoint_health ON endpoint_health.endpoint_id = endpoint.id
    WHERE state <> 'removed' GROUP BY 1""")


def health_of(row: Row[Any]) -> Health:
    """The health in a row of endpoint_health; the default for an endpoint that has no such row."""
    if row.breaker is None:
        return Health()
    return Health(**{name: getattr(row, name) for name in _NAMES})


def lock(conn: Connection, endpoint_ids: Collection[int]) -> dict[int, Health]:
    """The health of the endpoints, locked until the transaction ends."""
    ids = plain(sorted(endpoint_ids))
    return healths(together(conn, [(MAKE, {"ids": ids}), (LOCK, {"ids": ids})])[-1]) if endpoint_ids else {}


def lock_queries(failed: Collection[int], worked: Collection[int]) -> list[Query]:
    """The last of these queries gives `healths`, and locks them: of all that `failed`, and of others that are not clean."""
    locked = (LOCK_CONCERNED, {"failed": plain(failed), "worked": plain(worked)})
    return [(MAKE, {"ids": plain(sorted(failed))}), locked] if failed else [locked]


def healths(rows: Iterable[Sequence[Any]]) -> dict[int, Health]:
    """The health of each endpoint in the rows of `lock_queries`."""
    return {row[0]: Health(*row[1:]) for row in rows}


def lock_free(conn: Connection, endpoint_ids: Collection[int]) -> set[int]:
    """Locks the health of those of the endpoints that no other transaction has locked; returns their ids."""
    ids = sorted(endpoint_ids)
    conn.execute(MAKE, {"ids": ids})
    return set(conn.execute(LOCK_FREE, {"ids": ids}).scalars())


def write(conn: Connection, changed: Mapping[int, Health], now: datetime) -> None:
    """Writes the health of endpoints whose rows this transaction has locked."""
    if changed:
        together(conn, write_queries(changed, now))


def write_queries(changed: Mapping[int, Health], now: datetime) -> list[Query]:
    """The queries of `write`, for one round trip with others."""
    return [
        (WRITE, {**asdict(health), "last_error": storable(health.last_error), "endpoint_id": id_, "now": now})
        for id_, health in changed.items()
    ]


def enabled(conn: Connection, endpoint_id: int, now: datetime) -> None:
    """Records when an endpoint, whose row this transaction has locked, was enabled again."""
    conn.execute(ENABLED, {"endpoint_id": endpoint_id, "now": now})


def take_tokens(conn: Connection, left: Mapping[int, float], now: datetime) -> None:
    """Writes the tokens left in the buckets of endpoints whose rows this transaction has locked."""
    rows = [{"endpoint_id": id_, "tokens": tokens, "now": now} for id_, tokens in left.items()]
    if rows:
        conn.execute(TAKE_TOKENS, rows)


def note(conn: Connection, events: Sequence[tuple[EventKind, int, str]], now: datetime) -> None:
    """Adds operator events, each with its kind, endpoint and detail."""
    if events:
        together(conn, note_queries(events, now))


def note_queries(events: Sequence[tuple[EventKind, int, str]], now: datetime) -> list[Query]:
    """The queries of `note`, for one round trip with others."""
    return [(NOTE, {"kind": kind, "endpoint_id": id_, "detail": storable(detail), "now": now}) for kind, id_, detail in events]


def destinations(conn: Connection, now: datetime, since: datetime) -> dict[str, int]:
    """The numbers of healthy, degraded, open and paused endpoints; failures before `since` do not count."""
    return {row[0]: row[1] for row in conn.execute(DESTINATIONS, {"now": now, "since": since})}
