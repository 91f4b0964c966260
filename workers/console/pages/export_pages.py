"""Exports of a tenant's ledger: begun as jobs, and their files, which are given to who says why."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response, StreamingResponse

from ops.admin.jobs import exports, jobs
from ops.errors import Unknown
from workers.console.call import Call, Refused, existing
from workers.console.pages.layout import go
from workers.console.pages.page_table import Act, Page, field
from workers.console.pages.questions import by
from workers.console.pages.revealing import reason_of
from workers.console.rendering.page_addresses import at

ROWS: Final = 50


def listed(call: Call) -> Mapping[str, Any]:
    """The tenant's exports, the newest first."""
    return {"exports": exports.exports(call.console.reads, call.tenant, ROWS), "base": at(call.tenant, "ledger", "exports")}


def begin(call: Call) -> Response:
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


_PATH: Final = "/t/{tenant}/ledger/exports"
PAGES: Final = [Page(_PATH, "viewer", "exports.html", listed)]
ACTS: Final = [Act(f"{_PATH}/begin", "operator", begin), Act("/t/{tenant}/jobs/{id:int}/file", "operator", fetch)]
