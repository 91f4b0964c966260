"""The audit of operators' acts, and operator events."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Annotated, Any, Final

import orjson
from pydantic import Field

from ops.admin import history
from schemas.given import Moment, Slug
from workers.console.api.nouns.rows import Act
from workers.console.api.operation import Answer, Asked, Operation
from workers.console.api.paging import by_key, seen
from workers.console.api.shapes import Given, Paged, Shape, Time, page_of

NO_END: Final = 2**62
LINES: Final = "application/x-ndjson"


class ActsQuery(Given):
    """Which acts, or events."""

    tenant: Annotated[Slug | None, Field(description="needed if you see several tenants, but not all")] = None
    since: Moment | None = None
    until: Moment | None = None


class AuditQuery(ActsQuery, Paged):
    """Which acts, or events, on a page."""


class OperatorEvent(Shape):
    """What operators are told: disabled endpoints, open breakers, mailboxes, broken chains, crash loops."""

    id: int
    at: Time
    kind: str
    tenant: str | None
    endpoint: str | None
    mailbox: str | None
    detail: str | None
    cell: str | None


ActPage: Final = page_of(Act)
OperatorEventPage: Final = page_of(OperatorEvent)


def _acts(asked: Asked) -> Answer:
    query: AuditQuery = asked.query
    tenant = seen(asked)

    def rows(before: int | None) -> list[dict[str, Any]]:
        return history.acts_page(asked.reads, tenant, query.since, query.until, before or NO_END, query.limit + 1)

    return by_key(asked, {"audit": tenant, "since": query.since, "until": query.until}, rows, lambda row: row["id"])


def _exported(asked: Asked) -> Answer:
    query: ActsQuery = asked.query
    found = history.acts(asked.reads, query.since, query.until, tenant=seen(asked))
    lines = _lines(found)
    first = next(lines, b"")  # read before the answer begins: what fails in it is answered as an error
    return Answer(raw=chain([first], lines), headers={"Content-Disposition": 'attachment; filename="audit.jsonl"'})


def _lines(rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """Rows as lines of JSON, some of them at a time: a client that reads slowly holds no connection to Postgres."""
    while chunk := b"".join(orjson.dumps(row) + b"\n" for row in islice(rows, history.PAGE)):
        yield chunk


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
        "export_acts",
        "GET",
        "/audit/export",
        "viewer",
        "any",
        _exported,
        "All that operators did, newest first: one line of JSON for each",
        {200: None},
        ActsQuery,
        media=LINES,
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
