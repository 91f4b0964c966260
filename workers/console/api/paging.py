"""Pages of lists: how the rows of `ops.admin` become an answer with a cursor."""

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from ops.admin.search import cursors
from ops.admin.search.found import Found
from ops.admin.views import View, rfc3339
from schemas.access import EVERYWHERE
from workers.console.api.api_problems import Invalid
from workers.console.api.operation import Answer, Asked


def page(asked: Asked, found: Found, **more: Any) -> Answer:
    """A page as it is answered, with a link to the next one."""
    data: View = {"data": found.rows, "next": found.next, **more}
    return Answer(data, headers=_link(asked, found.next))


def searched(asked: Asked, found: Found) -> Answer:
    """A page of a search, which says how far it looked, and how far its index is."""
    times = {name: rfc3339(getattr(found, name)) for name in ("searched_to", "indexed_to")}
    return page(asked, found, **times, behind=found.behind)


def by_key(
    asked: Asked,
    what: Mapping[str, Any],
    rows: Callable[[Any], Iterable[View]],
    key: Callable[[View], Any],
) -> Answer:
    """A page of a list in order of a number, which the cursor holds; `rows` are those after one, or from the beginning.

    `what` names the list and its filter, to which the cursor belongs.
    """
    return by_place(asked, what, lambda after: ((key(row), row) for row in rows(after)))


def by_place(asked: Asked, what: Mapping[str, Any], rows: Callable[[Any], Iterable[tuple[Any, View]]]) -> Answer:
    """A page of a list of which each row comes with its place, which the cursor holds; `rows` are those after one."""
    after = None
    if asked.query.cursor is not None:
        (after,) = cursors.decode(asked.query.cursor, what)
    limit = asked.query.limit
    found = list(islice(rows(after), limit + 1))
    following = cursors.encode([found[limit - 1][0]], what) if len(found) > limit else None
    return page(asked, Found([row for _, row in found[:limit]], following))


def seen(asked: Asked) -> str | None:
    """The tenant whose rows are listed: the one asked for, or the only one that the principal sees; None: all.

    Raises `Refused` for a tenant that it does not see, and if it sees several and asked for none.
    """
    principal, tenant = asked.call.principal, asked.query.tenant
    if tenant is None and principal.role_in(EVERYWHERE) is not None:
        return None
    if tenant is None:
        tenant = principal.tenant
    if tenant is None:
        raise Invalid([{"parameter": "tenant", "detail": "say which: you see several, and not all"}])
    if principal.role_in(tenant) is None:
        raise Invalid([{"parameter": "tenant", "detail": "there is no such tenant"}])
    return str(tenant)


def _link(asked: Asked, following: str | None) -> dict[str, str]:
    if following is None:
        return {}
    given = {**dict(asked.call.request.query_params), "cursor": following}
    return {"Link": f'<{asked.call.request.url.path}?{urlencode(given)}>; rel="next"'}
