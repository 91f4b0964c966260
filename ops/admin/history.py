"""The audit of operators' acts, and operator events; read in pages, newest first."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Engine
from sqlalchemy import RowMapping as Row

from ops.admin.read_session import known_tenant, snapshot
from ops.admin.views import View, act_view, event_view
from pipeline.store.admin import audit

PAGE: Final = 200
_NO_END: Final = 2**62


def acts(
    engine: Engine, since: datetime | None, until: datetime | None, limit: int | None = None, tenant: str | None = None
) -> Iterator[View]:
    """The acts of operators, on one tenant or on all, from the audit."""
    rows = _pages(engine, limit, lambda conn, before, size: audit.acts(conn, tenant, since, until, before, size))
    return map(act_view, rows)


def events(
    engine: Engine, tenant: str | None, since: datetime | None, until: datetime | None, limit: int | None = None
) -> Iterator[View]:
    """The operator events. Raises `OpsError` for a tenant that does not exist."""
    if tenant is not None:
        with snapshot(engine) as conn:
            known_tenant(conn, tenant)
    rows = _pages(engine, limit, lambda conn, before, size: audit.events(conn, tenant, since, until, before, size))
    return map(event_view, rows)


def acts_page(
    engine: Engine, tenant: str | None, since: datetime | None, until: datetime | None, before: int, limit: int
) -> list[View]:
    """The `limit` newest acts with ids below `before`, on one tenant or on all."""
    with snapshot(engine) as conn:
        return [act_view(row) for row in audit.acts(conn, tenant, since, until, before, limit)]


def events_page(
    engine: Engine, tenant: str | None, since: datetime | None, until: datetime | None, before: int, limit: int
) -> list[View]:
    """The `limit` newest operator events with ids below `before`, of one tenant or of all."""
    with snapshot(engine) as conn:
        return [event_view(row) for row in audit.events(conn, tenant, since, until, before, limit)]


def _pages(engine: Engine, limit: int | None, read: Callable[[Connection, int, int], Sequence[Row]]) -> Iterator[Row]:
    before, left = _NO_END, _NO_END if limit is None else limit
    while left > 0:
        with snapshot(engine) as conn:
            page = read(conn, before, min(left, PAGE))
        yield from page
        if not page:
            return
        before, left = page[-1]["id"], left - len(page)
