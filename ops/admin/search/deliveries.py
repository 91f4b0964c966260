"""Lists of deliveries, newest first, in pages; and one delivery with its attempts."""

from datetime import datetime
from typing import Any, Final, get_args
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy import RowMapping as Row

from ops.admin.read_session import known_endpoint, known_tenant
from ops.admin.search import cursors
from ops.admin.search.found import BadSearch, Found, bounded, checked, reading
from ops.admin.views import View, delivery_view, object_in, try_view
from pipeline.store.admin import queries
from pipeline.store.search import delivery_pages
from schemas.delivery import DeliveryState

STATES: Final = get_args(DeliveryState)
MOST_OF_EVENT: Final = 100  # deliveries that are shown with an event

_ALL: Final = 2**62


def deliveries(
    engine: Engine, tenant: str, *, state: str | None, endpoint: str | None, cursor: str | None, limit: int
) -> Found:
    """A page of the tenant's deliveries, newest first, in this state and for this endpoint, or all.

    Looks at a bounded number of deliveries: see `Found.searched_to`. Raises `BadSearch`, `BadCursor`, and `OpsError` for names
    that do not exist.
    """
    bounded(limit)
    checked(tenant), checked(endpoint or "")
    if state is not None and state not in STATES:
        raise BadSearch(f"there is no state {state!r} of a delivery; there are {', '.join(STATES)}")
    kept = {"tenant": tenant, "state": state, "endpoint": endpoint}
    before, created_at = (_ALL, "infinity") if cursor is None else cursors.decode(cursor, kept)
    with reading(engine) as conn:
        known_tenant(conn, tenant)
        ids = [known_endpoint(conn, tenant, endpoint)] if endpoint else list(queries.endpoints(conn, tenant).values())
        key = {"before": before, "created_at": created_at}
        found = delivery_pages.page(conn, ids, state, key, limit + 1)
        shown = found.ids[:limit]
        rows = delivery_pages.rows(conn, tenant, [id_ for id_, _ in shown])
        behind = delivery_pages.behind(conn)
    stopped = found.stopped if len(found.ids) <= limit else None
    goes_on = shown[-1] if len(found.ids) > limit else stopped
    return Found(
        [row_view(rows[id_]) for id_, _ in shown if id_ in rows],
        None if goes_on is None else cursors.encode([goes_on[0], _text(goes_on[1])], kept),
        None if stopped is None else stopped[1],
        behind,
    )


def delivery(engine: Engine, tenant: str, id_: int) -> View | None:
    """One delivery of the tenant with its attempts, called `tries`, without what was answered (`answers`)."""
    with reading(engine) as conn:
        return next(iter(_whole(conn, checked(tenant), [id_])), None)


def answers(engine: Engine, tenant: str, id_: int) -> list[View] | None:
    """What the endpoint answered to each attempt at a delivery of the tenant: it may repeat content. None: no such delivery."""
    with reading(engine) as conn:
        if not delivery_pages.rows(conn, checked(tenant), [id_]):
            return None
        return [{name: try_view(each)[name] for name in ("n", "response")} for each in queries.attempts(conn, [id_])[id_]]


def of_event(conn: Connection, tenant: str, chain: UUID, seq: int) -> list[View]:
    """The first deliveries of an entry of the tenant, with their attempts."""
    return _whole(conn, tenant, delivery_pages.of_event(conn, tenant, chain, seq, MOST_OF_EVENT))


def _whole(conn: Connection, tenant: str, ids: list[int]) -> list[View]:
    rows = delivery_pages.rows(conn, tenant, ids)
    tries = queries.attempts(conn, list(rows))
    return [{**row_view(row), "tries": [_attempt(each) for each in tries[id_]]} for id_, row in sorted(rows.items())]


def row_view(row: Row) -> View:
    """A delivery in a list; `attempts` is their number."""
    view = {**delivery_view(row, ()), "type": object_in(row["attributes"]).get("type"), "size": row["size"]}
    del view["tries"]
    return view


def _attempt(row: Row) -> View:
    view = try_view(row)
    view["response_bytes"] = len(view.pop("response").encode())
    return view


def _text(at: datetime | None) -> Any:
    return "infinity" if at is None else at.isoformat()
