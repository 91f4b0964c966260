"""Events: searched, shown with their deliveries, in the timeline of a subject; and their content, revealed."""

from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import Field

from ops.admin.read_session import known_tenant, snapshot
from ops.admin.search import events as search
from ops.admin.search import reveal
from ops.admin.search.events import Search
from ops.admin.timeline import timeline
from ops.admin.views import without_body
from ops.errors import Unknown
from schemas.given import Moment, Slug, Words
from workers.console.api.nouns.rows import Delivery, Entry
from workers.console.api.operation import Answer, Asked, Operation
from workers.console.api.paging import by_key, searched
from workers.console.api.paths import OF_TENANT
from workers.console.api.shapes import Chain, Paged, Shape, Time, Why, page_of

_PREFIX: Final = "a trailing `*` makes a prefix of it"
Wanted = Annotated[Words, Field(description=_PREFIX)]


class EventRow(Shape):
    """An event in a list. `deliveries`: how many are in each state; `size` is null for a large body, which lies apart."""

    chain: Chain
    seq: int
    at: Time
    id: str | None
    type: str | None
    source: str | None
    subject: str | None
    size: int | None
    large: bool
    erased: bool
    deliveries: dict[str, int]


class Event(Entry):
    """An entry with its deliveries. `head` is the last one of its chain; `position` is null until the log has it."""

    tenant: str
    size: int | None
    head: int | None
    position: int | None
    incarnation: int | None
    deliveries: list[Delivery]


class EventQuery(Paged):
    """Which events; times are those of arrival."""

    type: Wanted | None = None
    source: Slug | None = None
    subject: Wanted | None = None
    id: Wanted | None = None
    since: Moment | None = None
    until: Moment | None = None


class TimelineQuery(Paged):
    """Of which subject."""

    subject: Words


class Content(Shape):
    """The exact body; `body` is its text, null if it is not UTF-8."""

    content_type: str
    body: str | None
    body_base64: str
    size: int


SEARCHED: Final[dict[str, Any]] = {
    "searched_to": (
        Annotated[Time | None, Field(description="few match: it has looked back to this time only, and goes on with `next`")],
        None,
    ),
    "behind": (Annotated[int, Field(description="entries that are not in the index yet")], 0),
    "indexed_to": (Time | None, None),
}
EventPage: Final = page_of(EventRow, **SEARCHED)
EntryPage: Final = page_of(Entry)


def known(asked: Asked) -> str:
    """The tenant in the path. Raises `Unknown` if there is none of that name."""
    with snapshot(asked.reads) as conn:
        return known_tenant(conn, str(asked.tenant))


def _events(asked: Asked) -> Answer:
    query: EventQuery = asked.query
    wanted = Search(known(asked), query.type, query.source, query.subject, query.id, query.since, query.until)
    return searched(asked, search.events(asked.reads, wanted, query.cursor, query.limit))


def _event(asked: Asked) -> Answer:
    chain, seq = _place(asked)
    found = search.event(asked.reads, str(asked.tenant), chain, seq)
    if found is None:
        raise Unknown("there is no such entry")
    return Answer(found)


def _timeline(asked: Asked) -> Answer:
    query: TimelineQuery = asked.query
    tenant = known(asked)

    def rows(after: int | None) -> Any:
        first = -1 if after is None else after
        most = query.limit + 1
        found = timeline(asked.reads, asked.settings, tenant, query.subject, first, most, bodies=False, scan=False)
        return map(without_body, found)

    return by_key(asked, {"timeline": tenant, "subject": query.subject}, rows, lambda row: row["seq"])


def _content(asked: Asked) -> Answer:
    by = asked.by(asked.body.reason)
    return Answer(reveal.of_event(asked.reads, asked.acts, asked.settings, str(asked.tenant), _place(asked), by))


def _place(asked: Asked) -> tuple[UUID, int]:
    return UUID(str(asked.call.path["chain"])), int(asked.call.path["seq"])


_EVENT: Final = f"{OF_TENANT}/events/{{chain}}/{{seq}}"
OPERATIONS: Final = (
    Operation(
        "search_events",
        "GET",
        f"{OF_TENANT}/events",
        "viewer",
        "tenant",
        _events,
        "Events, newest first",
        {200: EventPage},
        EventQuery,
    ),
    Operation(
        "show_event", "GET", _EVENT, "viewer", "tenant", _event, "An event with its deliveries, without content", {200: Event}
    ),
    Operation(
        "reveal_event",
        "POST",
        f"{_EVENT}/content",
        "operator",
        "tenant",
        _content,
        "Reveal the content of an event",
        {200: Content},
        body=Why,
        act=True,
        fresh=True,
        description="The audit says who revealed it, before it is answered.",
    ),
    Operation(
        "timeline",
        "GET",
        f"{OF_TENANT}/timeline",
        "viewer",
        "tenant",
        _timeline,
        "What is recorded of a subject, oldest first",
        {200: EntryPage},
        TimelineQuery,
    ),
)
