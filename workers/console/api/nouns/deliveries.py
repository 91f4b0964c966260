"""Deliveries: listed, shown with their tries; what the endpoints do not have yet; and what they answered, revealed."""

from collections.abc import Iterator
from typing import Annotated, Any, Final

from pydantic import Field

from ops.admin.jobs.arguments import MOST_IDS
from ops.admin.search import deliveries as search
from ops.admin.search import reveal
from ops.admin.undelivered import undelivered_after
from ops.errors import Unknown
from pipeline.store.deliveries.undelivered import Range
from schemas.delivery import DeliveryState
from schemas.given import Id, Moment, Rate, Slug
from workers.console.api.nouns.events import SEARCHED
from workers.console.api.nouns.job_starts import ANSWERS, DryRun, begin
from workers.console.api.nouns.rows import Delivery, DeliveryRow, Undelivered
from workers.console.api.operation import Answer, Asked, Operation
from workers.console.api.paging import by_place, searched
from workers.console.api.paths import OF_TENANT
from workers.console.api.shapes import Given, Paged, Reason, Shape, Why, page_of


class DeliveryQuery(Paged):
    """Which deliveries."""

    state: DeliveryState | None = None
    endpoint: Slug | None = None


class UndeliveredQuery(Paged):
    """Which events; times are those of their recording."""

    endpoint: Slug | None = None
    since: Moment | None = None
    until: Moment | None = None


class Retry(Given):
    """Which tries that are planned for later are to be made now; all of them if none is named."""

    endpoint: Slug | None = None
    ids: Annotated[list[Id], Field(min_length=1, max_length=MOST_IDS)] | None = None
    rate: Rate = 500
    reason: Reason | None = None


class Answered(Shape):
    """What an endpoint answered to one try, as text."""

    n: int
    response: str


class Answers(Shape):
    """What an endpoint answered to each try."""

    answers: list[Answered]


DeliveryPage: Final = page_of(DeliveryRow, **SEARCHED)
UndeliveredPage: Final = page_of(Undelivered)


def _deliveries(asked: Asked) -> Answer:
    query: DeliveryQuery = asked.query
    tenant = str(asked.tenant)
    found = search.deliveries(
        asked.reads, tenant, state=query.state, endpoint=query.endpoint, cursor=query.cursor, limit=query.limit
    )
    return searched(asked, found)


def _delivery(asked: Asked) -> Answer:
    found = search.delivery(asked.reads, str(asked.tenant), asked.id)
    if found is None:
        raise Unknown(f"there is no delivery {asked.id}")
    return Answer(found)


def _answers(asked: Asked) -> Answer:
    return Answer(
        reveal.of_delivery(asked.reads, asked.acts, str(asked.tenant), asked.id, asked.by(asked.body.reason)),
    )


def _undelivered(asked: Asked) -> Answer:
    query: UndeliveredQuery = asked.query
    tenant, when = str(asked.tenant), Range(query.since, query.until)

    def rows(after: list[Any] | None) -> Iterator[tuple[list[Any], dict[str, Any]]]:
        return undelivered_after(asked.reads, tenant, query.endpoint, when, after, query.limit + 1)

    return by_place(asked, {"undelivered": tenant, "endpoint": query.endpoint, "when": str(when)}, rows)


def _retry(asked: Asked) -> Answer:
    return begin(asked, "retry", asked.body.model_dump(mode="json", exclude_none=True, exclude={"reason"}), asked.body.reason)


_ONE: Final = f"{OF_TENANT}/deliveries/{{id}}"
OPERATIONS: Final = (
    Operation(
        "list_deliveries",
        "GET",
        f"{OF_TENANT}/deliveries",
        "viewer",
        "tenant",
        _deliveries,
        "Deliveries, newest first",
        {200: DeliveryPage},
        DeliveryQuery,
    ),
    Operation("show_delivery", "GET", _ONE, "viewer", "tenant", _delivery, "A delivery with its tries", {200: Delivery}),
    Operation(
        "reveal_answers",
        "POST",
        f"{_ONE}/answers",
        "operator",
        "tenant",
        _answers,
        "Reveal what the endpoint answered to each try",
        {200: Answers},
        body=Why,
        act=True,
        fresh=True,
        description="The audit says who revealed it, before it is answered.",
    ),
    Operation(
        "retry_deliveries",
        "POST",
        f"{OF_TENANT}/deliveries/retry",
        "operator",
        "tenant",
        _retry,
        "Try deliveries now that are planned for later",
        ANSWERS,
        DryRun,
        Retry,
        act=True,
        keyed="required",
        description="Their schedules go on from there. What a breaker, a rate or a disabled endpoint holds back stays so.",
    ),
    Operation(
        "list_undelivered",
        "GET",
        f"{OF_TENANT}/undelivered",
        "viewer",
        "tenant",
        _undelivered,
        "Every event that an endpoint does not have yet",
        {200: UndeliveredPage},
        UndeliveredQuery,
    ),
)
