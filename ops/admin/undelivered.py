"""Lists undelivered events in pages, and makes planned tries due now."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine

from ops.admin.read_session import known_endpoint, known_tenant, snapshot
from ops.admin.views import View, undelivered_view
from pipeline.store.admin import queries
from pipeline.store.deliveries import undelivered as store
from pipeline.store.deliveries.undelivered import PlannedTries, Range

PAGE: Final = 500
IDS: Final = 100_000  # of unsettled deliveries, in memory at once
_BEGINNING: Final = datetime(1, 1, 1, tzinfo=UTC)


def endpoints_of(conn: Connection, tenant: str, endpoint: str | None) -> dict[str, int]:
    """The ids of the tenant's endpoints by name, or of the named one only. Raises `OpsError` for names that do not exist."""
    known_tenant(conn, tenant)
    if endpoint is not None:
        return {endpoint: known_endpoint(conn, tenant, endpoint)}
    return queries.endpoints(conn, tenant)


def undelivered(
    engine: Engine, tenant: str, endpoint: str | None, since: datetime | None = None, until: datetime | None = None
) -> Iterator[View]:
    """Every undelivered pair of event and endpoint, endpoint by endpoint: first unsettled deliveries, then ended ones.

    Only of events recorded from `since` on and before `until`. Each page is a snapshot of its own: a delivery that succeeds
    meanwhile is left out, one that dies may be listed twice.
    """
    for _place, view in undelivered_after(engine, tenant, endpoint, Range(since, until), None, IDS):
        yield view


def undelivered_after(
    engine: Engine, tenant: str, endpoint: str | None, when: Range, after: Sequence[Any] | None, most: int
) -> Iterator[tuple[list[Any], View]]:
    """The same after a place, each with its own; `most` are read at once."""
    with snapshot(engine) as conn:
        found = endpoints_of(conn, tenant, endpoint)
        lacking = store.lacking(conn, list(found.values()))
    for name, id_ in sorted((name, id_) for name, id_ in found.items() if id_ in lacking):
        here = after if after is not None and after[0] == name else None
        if after is not None and name < after[0]:
            continue
        if here is None or here[1] == "unsettled":
            first = 0 if here is None else int(here[2])
            yield from (([name, "unsettled", view["id"]], view) for view in _unsettled(engine, id_, when, first, most))
        last = _BEGINNING, 0
        if here is not None and here[1] == "ended":
            last = datetime.fromisoformat(here[2]), int(here[3])
        yield from (([name, "ended", view["created_at"], view["id"]], view) for view in _ended(engine, id_, when, last, most))


def _unsettled(engine: Engine, endpoint_id: int, when: Range, after: int, most: int) -> Iterator[View]:
    """By id. Which deliveries are unsettled is read for many pages at once."""
    while True:
        with snapshot(engine) as conn:
            ids = store.unsettled_ids(conn, endpoint_id, when, after, most)
        for first in range(0, len(ids), PAGE):
            with snapshot(engine) as conn:
                page = store.unsettled(conn, ids[first : first + PAGE])
            yield from map(undelivered_view, page)
        if len(ids) < most:
            return
        after = ids[-1]


def _ended(engine: Engine, endpoint_id: int, when: Range, after: tuple[datetime, int], most: int) -> Iterator[View]:
    size = min(PAGE, most)
    while True:
        with snapshot(engine) as conn:
            page = store.ended(conn, endpoint_id, when, after, size)
        yield from map(undelivered_view, page)
        if len(page) < size:
            return
        after = (page[-1]["created_at"], page[-1]["id"])


class MoveUp:
    """Counts the tries that are planned for later than now. An instance is the `Step` that makes them due."""

    def __init__(self, conn: Connection, endpoints: Mapping[str, int], ids: Sequence[int] | None) -> None:
        self._endpoints = list(endpoints.values())
        self._ids = ids
        self._now = datetime.now(UTC)
        self.counted: Sequence[PlannedTries] = store.planned(conn, self._endpoints, ids, self._now)
        self._after = min((each.first for each in self.counted), default=0) - 1
        self._last = max((each.last for each in self.counted), default=-1)

    def __call__(self, conn: Connection, size: int) -> int | None:
        """Makes the next tries due; returns how many, or None when there are no more."""
        moved = store.move_up(conn, self._endpoints, self._ids, self._now, (self._after, self._last), size)
        if not moved:
            return None
        self._after = moved[-1]
        return len(moved)
