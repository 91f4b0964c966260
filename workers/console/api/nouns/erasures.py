"""Erasures on request: counted, confirmed by the count, and carried out by the eraser, which alone has the rights."""

from typing import Annotated, Final

from pydantic import Field

from ops.admin.erasure import erase_subject
from ops.admin.jobs.arguments import ERASE_RATE, MOST_IDS
from pipeline.ledger.erase import Order
from schemas.given import Rate, Words
from workers.console.api.api_problems import Invalid
from workers.console.api.nouns.job_starts import ANSWERS, DryRun, begin
from workers.console.api.operation import Answer, Asked, Operation
from workers.console.api.paths import OF_TENANT
from workers.console.api.shapes import Because


class Erasure(Because):
    """Whose content is erased: all events of a subject, or those with these numbers. The reason is kept in the ledger."""

    subject: Words
    seqs: Annotated[list[Annotated[int, Field(ge=0, le=2**62)]], Field(min_length=1, max_length=MOST_IDS)] | None = None
    subject_name: Annotated[bool, Field(description="erase the subject's name, too; not with `seqs`")] = False
    confirm: Annotated[
        int | None,
        Field(ge=0, le=2**62, description="the count of `dry_run`; needed to erase, and refused if it is another"),
    ] = None
    rate: Rate = ERASE_RATE


def _erase(asked: Asked) -> Answer:
    body: Erasure = asked.body
    if body.subject_name and body.seqs is not None:
        raise Invalid([{"pointer": "/subject_name", "detail": "goes with the whole subject: its other entries hold it, too"}])
    if body.confirm is None and not asked.query.dry_run:
        raise Invalid([{"pointer": "/confirm", "detail": "say how many: ask with `dry_run=true` first"}])
    erase_subject.check_requests(asked.settings)
    erase_subject.check_told(body.subject, Order(asked.call.principal.who, body.reason))
    chain = erase_subject.chain_of(asked.reads, asked.settings, str(asked.tenant), body.subject)
    given = body.model_dump(mode="json", exclude_none=True, include={"seqs", "subject_name", "reason", "rate"})
    return begin(asked, "erase", {**given, "chain": chain.chain_id.hex}, body.reason, body.confirm)


OPERATIONS: Final = (
    Operation(
        "erase",
        "POST",
        f"{OF_TENANT}/erasures",
        "admin",
        "tenant",
        _erase,
        "Erase the content of a subject's events; there is no way back",
        ANSWERS,
        DryRun,
        Erasure,
        act=True,
        keyed="required",
        fresh=True,
        description="As `waxseal erase` does: entries and proofs stay. The job waits for the eraser, which does it. Who asks "
        "and the reason are kept in the ledger for ever, and must not name the subject.",
    ),
)
