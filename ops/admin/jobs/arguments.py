"""What each kind of job is given: the conditions that select what it acts on, and its rate."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from ops.admin.bulk import RATE
from ops.errors import OpsError
from schemas.dead_letter import DeadLetterFilter, Stage
from schemas.given import Id, Moment, Rate, Slug, Words
from schemas.job import JobKind

MOST_IDS: Final = 1000
ERASE_RATE: Final = 2000.0  # entries per second, by default


class Arguments(BaseModel):
    """Known members only."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Paced(Arguments):
    """An act on many rows."""

    rate: Rate = RATE


class DeadLetters(Paced):
    """Open dead letters; times are those of the last failure."""

    endpoint: Slug | None = None
    reason: Words | None = None
    stage: Stage | None = None
    since: Moment | None = None
    until: Moment | None = None
    ids: Annotated[list[Id], Field(min_length=1, max_length=MOST_IDS)] | None = None

    def wanted(self, tenant: str | None) -> DeadLetterFilter:
        """The selection, of a tenant or, if it is None, of all and of none."""
        return DeadLetterFilter(tenant, self.endpoint, self.reason, self.since, self.until, self.ids, stage=self.stage)


class Missed(Paced):
    """What an endpoint missed while it was disabled."""

    endpoint: Slug


class MissedForGood(Missed):
    """The same, to be discarded."""

    enable: Annotated[bool, Field(description="enable the endpoint when all is discarded")] = False


class FailedSince(Paced):
    """What is dead at an endpoint, of the events that were recorded from `since` on, before `until`."""

    endpoint: Slug
    since: Moment
    until: Moment | None = None


class Waiting(Paced):
    """Tries that are planned for later."""

    endpoint: Slug | None = None
    ids: Annotated[list[Id], Field(min_length=1, max_length=MOST_IDS)] | None = None


class Erasing(Arguments):
    """Events of one chain: all of them, or those with these numbers; `subject_name`: the subject's name, too."""

    chain: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    seqs: Annotated[list[Annotated[int, Field(ge=0, le=2**62)]], Field(min_length=1, max_length=MOST_IDS)] | None = None
    subject_name: bool = False
    reason: Words
    rate: Rate = ERASE_RATE


class OfLedger(Arguments):
    """A ledger, or one subject of it."""

    subject: Words | None = None


ARGUMENTS: Final[Mapping[JobKind, type[Arguments]]] = {
    "replay": DeadLetters,
    "discard": DeadLetters,
    "endpoint_replay": Missed,
    "endpoint_discard": MissedForGood,
    "redeliver": FailedSince,
    "retry": Waiting,
    "erase": Erasing,
    "verify": OfLedger,
    "export": OfLedger,
}
#: Kinds that may act on all tenants at once.
OF_ALL: Final = frozenset[JobKind]({"replay", "discard", "verify"})


def read(kind: JobKind, tenant: str | None, given: Mapping[str, Any]) -> Arguments:
    """The arguments of a job. Raises `OpsError` for what they must not be."""
    if tenant is None and kind not in OF_ALL:
        raise OpsError(f"a job of kind {kind} is of one tenant")
    try:
        arguments = ARGUMENTS[kind].model_validate_json(to_json(dict(given)))
    except ValidationError as error:
        told = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_input=False))
        raise OpsError("; ".join(told)) from None
    if isinstance(arguments, OfLedger) and arguments.subject is not None and tenant is None:
        raise OpsError("a subject is of one tenant: say which")
    return arguments
