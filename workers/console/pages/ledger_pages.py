"""The ledger: what can be claimed of it, its checkpoints, their places and anchors, its verification, and its exports."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response, StreamingResponse

from ops.admin.jobs import exports, jobs
from ops.admin.log.standing import standing
from ops.admin.verifying.last_found import last_found
from ops.errors import Unknown
from workers.console.call import Call, Refused, existing
from workers.console.pages.layout import go
from workers.console.pages.page_table import Act, Page, field
from workers.console.pages.questions import by
from workers.console.pages.revealing import reason_of
from workers.console.rendering.page_addresses import at

ROWS: Final = 50  # of exports

#: What each word means, from the weakest to the strongest; each includes those before it.
WORDS: Final = {
    "none": "nothing can be claimed",
    "chained": "every entry is linked to the one before it, and none was altered",
    "sealed": "a signed checkpoint covers what was recorded",
    "published": "that checkpoint can be read outside the database",
    "anchored": "somebody else's clock or register has seen it",
    "witnessed": "somebody else has signed that it only grows",
}


def whole(call: Call) -> Mapping[str, Any]:
    """What can be claimed of each tenant's ledger, and what the last verification found."""
    return {**last_found(call.console.reads, None), "logs": (), "words": WORDS, "job": None}


def one(call: Call) -> Mapping[str, Any]:
    """The same of one tenant, with its log."""
    logs = standing(call.console.reads, call.console.settings, call.tenant)
    asked_for = exports.newest(call.console.reads, call.tenant, "verify", 1)
    return {
        **last_found(call.console.reads, call.tenant),
        "logs": list(reversed(logs)),
        "words": WORDS,
        "job": asked_for[0] if asked_for else None,
    }


def verify(call: Call) -> Response:
    """Start a verification, of a subject if one is named."""
    tenant = call.path.get("tenant")
    arguments = {"subject": subject} if (subject := field(call, "subject")) else {}
    id_ = jobs.start(call.console.acts, "verify", tenant, arguments, by(call))
    return go(call, at(tenant, "jobs", id_), "The verification has begun.")


def exported(call: Call) -> Mapping[str, Any]:
    """The tenant's exports, the newest first."""
    return {"exports": exports.exports(call.console.reads, call.tenant, ROWS), "base": at(call.tenant, "ledger", "exports")}


def export(call: Call) -> Response:
    """Start an export of the whole ledger, or of a subject if one is named."""
    arguments = {"subject": subject} if (subject := field(call, "subject")) else {}
    id_ = jobs.start(call.console.acts, "export", call.tenant, arguments, by(call))
    return go(call, at(call.tenant, "jobs", id_), "The export has begun. Its file is here when it is done, for a day.")


def fetch(call: Call) -> Response:
    """The file of an export, once the audit has who fetched it, and why: it holds content."""
    id_, reason = int(call.path["id"]), reason_of(call)
    job = jobs.show(call.console.reads, id_)
    existing(job if job is not None and job["tenant"] == call.tenant else None, "export")
    try:
        parts = jobs.fetched(call.console.acts, id_, by(call, reason))
    except Unknown as error:
        raise Refused(404, "gone", str(error)) from error
    headers = {"Content-Disposition": f'attachment; filename="{call.tenant}-{id_}.jsonl"'}
    return StreamingResponse(parts, 200, headers, "application/octet-stream")


_EXPORTS: Final = "/t/{tenant}/ledger/exports"
PAGES: Final = [
    Page("/ledger", "viewer", "ledger.html", whole),
    Page("/t/{tenant}/ledger", "viewer", "ledger.html", one),
    Page(_EXPORTS, "viewer", "exports.html", exported),
]
ACTS: Final = [
    Act("/ledger/verify", "operator", verify),
    Act("/t/{tenant}/ledger/verify", "operator", verify),
    Act(f"{_EXPORTS}/begin", "operator", export),
    Act("/t/{tenant}/jobs/{id:int}/file", "operator", fetch),
]
