"""The ledger: the tenant's logs, proofs from them, what was verified; verification and export as jobs."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final

from pydantic import Field
from sqlalchemy import Connection

from ops.admin import proofs
from ops.admin.log.standing import standing
from ops.admin.read_session import known_tenant, snapshot
from ops.admin.verifying.verdicts import verdicts
from schemas.given import Words
from schemas.job import JobKind
from workers.console.api.nouns.events import known
from workers.console.api.nouns.job_starts import ANSWERS, DryRun, begin
from workers.console.api.operation import Answer, Asked, Operation
from workers.console.api.paths import OF_TENANT
from workers.console.api.shapes import Given, Number, Shape, Time, Why

TEXT: Final = "text/plain; charset=utf-8"
_Size = Annotated[Number, Field(ge=1, le=2**62)]


class Sealed(Shape):
    """The newest checkpoint that was signed."""

    size: int
    at: Time | None


class Published(Shape):
    """What is at the place of the published logs, verified."""

    place: str | None
    size: int | None
    error: str | None


class Anchored(Shape):
    """What a place outside took of the log last."""

    kind: str
    place: str
    size: int | None
    at: Time | None
    age: float | None


class LogKey(Shape):
    """A public key of a log, with what others verify checkpoints by."""

    id: int
    state: str
    created_at: Time
    vkey: str


class Refusal(Shape):
    """Why the log is not signed any more."""

    kind: str
    detail: str | None
    since: Time | None


class Log(Shape):
    """A tenant's log; the newest incarnation is the last one."""

    tenant: str
    incarnation: int
    origin: str
    state: str
    size: int
    pending: int
    sealed: Sealed | None
    published: Published
    anchored: list[Anchored]
    keys: list[LogKey]
    refused: Refusal | None


class Logs(Shape):
    """The incarnations of the tenant's log."""

    data: list[Log]


class Verdict(Shape):
    """What was last found of a tenant's ledger: what can be claimed of it, and what is missing for more."""

    tenant: str
    claim: str
    checked_at: Time
    missing: str


class Verdicts(Shape):
    """What was last found of the ledger of each tenant that is asked for."""

    data: list[Verdict]


class OfEntry(Given):
    """Which entry of the subject; the last one in the log if none is named."""

    subject: Words
    seq: Annotated[Number, Field(ge=0, le=2**62)] | None = None


class OfSubject(Given):
    """Of which subject."""

    subject: Words


class Sizes(Given):
    """Two sizes of the log, the smaller one first."""

    old: _Size
    new: _Size


class OfLedger(Why):
    """All of the tenant's ledger, or one subject."""

    subject: Words | None = None


def _logs(asked: Asked) -> Answer:
    return Answer({"data": standing(asked.reads, asked.settings, known(asked))})


def _proof(prove: Callable[[Connection, Asked, str], Any], asked: Asked) -> Answer:
    with snapshot(asked.reads) as conn:
        text = prove(conn, asked, known_tenant(conn, str(asked.tenant))).text
    return Answer(raw=text.encode())


def _verdicts(asked: Asked) -> Answer:
    if asked.tenant is not None:
        known(asked)
    return Answer({"data": verdicts(asked.reads, asked.tenant)})


def _start(kind: JobKind, asked: Asked) -> Answer:
    subject = getattr(asked.body, "subject", None)
    return begin(asked, kind, {} if subject is None else {"subject": subject}, asked.body.reason)


_LOG: Final = f"{OF_TENANT}/log"
_PROOFS: Final = f"{OF_TENANT}/proofs"


def _proof_of(name: str, told: str, query: Any, prove: Callable[[Connection, Asked, str], Any]) -> Operation:
    path = f"{_PROOFS}/{name}"
    handler = partial(_proof, prove)
    return Operation(
        f"prove_{name}", "GET", path, "viewer", "tenant", handler, told, {200: None}, query, media=TEXT, problems=(409,)
    )


OPERATIONS: Final = (
    Operation("show_log", "GET", _LOG, "viewer", "tenant", _logs, "The tenant's log: size, checkpoints, anchors", {200: Logs}),
    _proof_of(
        "entry",
        "Proof that an entry is in the published log (C2SP tlog-proof)",
        OfEntry,
        lambda conn, asked, tenant: proofs.prove(
            conn, asked.settings, tenant, asked.query.subject, asked.query.seq, scan=False
        ),
    ),
    _proof_of(
        "complete",
        "Proof of where the subject's entries ended",
        OfSubject,
        lambda conn, asked, tenant: proofs.prove_complete(conn, asked.settings, tenant, asked.query.subject, scan=False),
    ),
    _proof_of(
        "consistency",
        "Proof that the log of one size continues that of another",
        Sizes,
        lambda conn, asked, tenant: proofs.prove_consistency(conn, asked.settings, tenant, asked.query.old, asked.query.new),
    ),
    Operation(
        "show_verdict",
        "GET",
        f"{OF_TENANT}/verifications",
        "viewer",
        "tenant",
        _verdicts,
        "What was last found of the tenant's ledger",
        {200: Verdicts},
    ),
    Operation(
        "show_verdicts",
        "GET",
        "/verifications",
        "viewer",
        "all",
        _verdicts,
        "What was last found of each tenant's ledger",
        {200: Verdicts},
    ),
    Operation(
        "verify",
        "POST",
        f"{OF_TENANT}/verifications",
        "operator",
        "tenant",
        partial(_start, "verify"),
        "Verify the tenant's ledger",
        ANSWERS,
        DryRun,
        OfLedger,
        act=True,
        keyed="required",
    ),
    Operation(
        "verify_all",
        "POST",
        "/verifications",
        "operator",
        "all",
        partial(_start, "verify"),
        "Verify the whole ledger",
        ANSWERS,
        DryRun,
        Why,
        act=True,
        keyed="required",
    ),
    Operation(
        "export",
        "POST",
        f"{OF_TENANT}/exports",
        "operator",
        "tenant",
        partial(_start, "export"),
        "Export the tenant's ledger, with its content",
        ANSWERS,
        DryRun,
        OfLedger,
        act=True,
        keyed="required",
        description="The file is at `/jobs/{id}/file` when the job is done, for a day.",
    ),
)
