"""Dead letters: of a tenant, or of all and of none; listed, counted, shown, revealed, replayed and discarded."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Final

from pydantic import Field, model_validator

from ops.admin.jobs.arguments import DeadLetters
from ops.admin.search import reveal
from ops.admin.timeline import count_groups, dead_letter, dead_letters
from schemas.dead_letter import DeadLetterFilter, Stage
from schemas.given import Moment, Slug, Words
from schemas.job import JobKind
from workers.console.api.nouns.deliveries import Answered
from workers.console.api.nouns.job_starts import ANSWERS, DryRun, begin
from workers.console.api.nouns.rows import DeadLetter, DeadLetterRow, Group
from workers.console.api.operation import Answer, Asked, Operation, Scope
from workers.console.api.paging import by_key
from workers.console.api.paths import OF_TENANT
from workers.console.api.shapes import Flag, Given, Paged, Reason, Shape, Why, page_of


class Which(Given):
    """Which dead letters; times are those of the last failure."""

    endpoint: Slug | None = None
    reason: Words | None = None
    stage: Stage | None = None
    since: Moment | None = None
    until: Moment | None = None
    closed: Annotated[Flag, Field(description="those that were replayed or discarded, too")] = False


class DeadLetterQuery(Which, Paged):
    """Which dead letters."""


class Decision(DeadLetters):
    """Which open dead letters to decide about: at least one condition, or `all`."""

    all: Annotated[bool, Field(description="all that are open; goes with no condition")] = False
    why: Annotated[Reason | None, Field(description="why; the audit keeps it")] = None

    @model_validator(mode="after")
    def _is_meant(self) -> "Decision":
        chosen = self.model_fields_set - {"all", "why", "rate"}
        if bool({name for name in chosen if getattr(self, name) is not None}) is self.all:
            raise ValueError("choose some by a condition, or say `all`")
        return self


class Message(Shape):
    """What a dead letter holds: the message as it came, or what the endpoint answered to each try."""

    content_type: str | None
    headers: dict[str, Any] | None
    body: str | None
    body_base64: str | None
    answers: list[Answered]


class Groups(Shape):
    """Dead letters in groups, the largest first."""

    data: list[Group]


DeadLetterPage: Final = page_of(DeadLetterRow)


def _wanted(asked: Asked) -> DeadLetterFilter:
    query: Which = asked.query
    found = DeadLetterFilter(asked.tenant, query.endpoint, query.reason, query.since, query.until)
    return replace(found, closed=query.closed, stage=query.stage)


def _listed(asked: Asked) -> Answer:
    wanted = _wanted(asked)

    def rows(before: int | None) -> Iterator[dict[str, Any]]:
        limit = asked.query.limit + 1
        return dead_letters(asked.reads, wanted, limit) if before is None else dead_letters(asked.reads, wanted, limit, before)

    return by_key(asked, {"dead_letters": asked.tenant, **wanted.asked()}, rows, lambda row: row["id"])


def _groups(asked: Asked) -> Answer:
    return Answer({"data": count_groups(asked.reads, _wanted(asked))})


def _shown(asked: Asked) -> Answer:
    return Answer(reveal.without_content(dead_letter(asked.reads, asked.settings, asked.id, asked.tenant, content=False)))


def _revealed(asked: Asked) -> Answer:
    by = asked.by(asked.body.reason)
    return Answer(reveal.of_dead_letter(asked.reads, asked.acts, asked.settings, asked.tenant, asked.id, by))


def _decide(kind: JobKind, asked: Asked) -> Answer:
    body: Decision = asked.body
    given = body.model_dump(mode="json", exclude_none=True, exclude={"all", "why"})
    return begin(asked, kind, given, body.why)


def _operations(scope: Scope, base: str, of: str) -> Iterator[Operation]:
    def operation(name: str, method: str, path: str, *row: Any, **more: Any) -> Operation:
        role = "viewer" if method == "GET" else "operator"
        return Operation(f"{name}{of}", method, base + path, role, scope, *row, **more)  # type: ignore[arg-type]

    yield operation(
        "list_dead_letters", "GET", "", _listed, "Dead letters, newest first", {200: DeadLetterPage}, DeadLetterQuery
    )
    yield operation("count_dead_letters", "GET", "/groups", _groups, "Dead letters counted in groups", {200: Groups}, Which)
    yield operation("show_dead_letter", "GET", "/{id}", _shown, "A dead letter with its tries", {200: DeadLetter})
    yield operation(
        "reveal_dead_letter",
        "POST",
        "/{id}/content",
        _revealed,
        "Reveal the message of a dead letter",
        {200: Message},
        body=Why,
        act=True,
        fresh=True,
        description="The audit says who revealed it, before it is answered.",
    )
    kinds: tuple[tuple[JobKind, str], ...] = (
        ("replay", "Replay dead letters by their normal route"),
        ("discard", "Close dead letters for good"),
    )
    for kind, told in kinds:
        yield operation(
            f"{kind}_dead_letters",
            "POST",
            f"/{kind}",
            partial(_decide, kind),
            told,
            ANSWERS,
            DryRun,
            Decision,
            act=True,
            keyed="required",
        )


OPERATIONS: Final = (
    *_operations("tenant", f"{OF_TENANT}/dead-letters", ""),
    *_operations("all", "/dead-letters", "_of_all"),
)
