"""Lists undelivered events in pages, and makes planned tries due now."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy import RowMapping as Row

from ops.admin.read_session import known_endpoint, known_tenant, snapshot
from ops.admin.views import View, undelivered_view
from pipeline.store.admin import queries
from pipeline.store.deliveries import undelivered as store
from pipeline.store.deliveries.undelivered import PlannedTries, Range

PAGE: Final = 500
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
    when = Range(since, until)
    with snapshot(engine) as conn:
        found = endpoints_of(conn, tenant, endpoint)
    for _name, id_ in sorted(found.items()):
        yield from _paged(engine, partial(store.unsettled, endpoint_id=id_, when=when), (UUID(int=0), -1), ("chain_id", "seq"))
        yield from _paged(engine, partial(store.ended, endpoint_id=id_, when=when), (_BEGINNING, 0), ("created_at", "id"))


def _paged(engine: Engine, read: Callable[..., Sequence[Row]], after: tuple[Any, ...], key: tuple[str, str]) -> Iterator[View]:
    """Reads page by page, each one after the `key` of the last row before it."""
    while True:
        with snapshot(engine) as conn:
            page = read(conn, after=after, limit=PAGE)
        yield from map(undelivered_view, page)
        if len(page) < PAGE:
            return
        after = tuple(page[-1][name] for name in key)


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
