"""The audit of operators' acts, and operator events."""

from typing import Annotated, Any, Final

from pydantic import Field

from ops.admin import history
from schemas.given import Moment, Slug
from workers.console.api.nouns.rows import Act
from workers.console.api.operation import Answer, Asked, Operation
from workers.console.api.paging import by_key, seen
from workers.console.api.shapes import Paged, Shape, Time, page_of

NO_END: Final = 2**62


class AuditQuery(Paged):
    """Which acts, or events."""

    tenant: Annotated[Slug | None, Field(description="needed if you see several tenants, but not all")] = None
    since: Moment | None = None
    until: Moment | None = None


class OperatorEvent(Shape):
    """What operators are told: disabled endpoints, open breakers, mailboxes, broken chains, crash loops."""

    id: int
    at: Time
    kind: str
    tenant: str | None
    endpoint: str | None
    mailbox: str | None
    detail: str | None


ActPage: Final = page_of(Act)
OperatorEventPage: Final = page_of(OperatorEvent)


def _acts(asked: Asked) -> Answer:
    query: AuditQuery = asked.query
    tenant = seen(asked)

    def rows(before: int | None) -> list[dict[str, Any]]:
        return history.acts_page(asked.reads, tenant, query.since, query.until, before or NO_END, query.limit + 1)

    return by_key(asked, {"audit": tenant, "since": query.since, "until": query.until}, rows, lambda row: row["id"])


def _events(asked: Asked) -> Answer:
    query: AuditQuery = asked.query
    tenant = seen(asked)

    def rows(before: int | None) -> list[dict[str, Any]]:
        return history.events_page(asked.reads, tenant, query.since, query.until, before or NO_END, query.limit + 1)

    return by_key(asked, {"events": tenant, "since": query.since, "until": query.until}, rows, lambda row: row["id"])


OPERATIONS: Final = (
    Operation(
        "list_acts", "GET", "/audit", "viewer", "any", _acts, "What operators did, newest first", {200: ActPage}, AuditQuery
    ),
    Operation(
        "list_operator_events",
        "GET",
        "/operator-events",
        "viewer",
        "any",
        _events,
        "What operators were told, newest first",
        {200: OperatorEventPage},
        AuditQuery,
    ),
)
