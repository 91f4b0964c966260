"""Jobs: long acts with their progress, which survives the process that runs them."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from ops.admin.jobs import jobs
from ops.admin.jobs.exports import file_until
from ops.admin.views import View
from workers.console.call import Call, existing
from workers.console.pages.layout import go
from workers.console.pages.page_table import Act, Page
from workers.console.pages.questions import by
from workers.console.rendering.page_addresses import asked, at

ROWS: Final = 50
ENDED: Final = ("done", "failed", "cancelled")


def listed(call: Call) -> Mapping[str, Any]:
    """The jobs, the newest first."""
    tenant, cursor = call.path.get("tenant"), call.query.get("cursor")
    base = at(tenant, "jobs")
    found = jobs.listed(call.console.reads, tenant, cursor, ROWS)
    return {"jobs": found.rows, "next": found.next and asked(base, cursor=found.next), "first": base if cursor else None}


def one(call: Call) -> Mapping[str, Any]:
    """One job, as far as it is."""
    job = _job(call)
    total, per_second = job["total"], job["per_second"]
    left = None if total is None else max(0, total - job["done"])
    ends = left / per_second if left and per_second and job["state"] == "running" else None
    return {
        "job": job,
        "ended": job["state"] in ENDED,
        "ends_in": ends,
        "base": at(call.path.get("tenant"), "jobs", job["id"]),
        "file_until": file_until(job),
    }


def cancel(call: Call) -> Response:
    """End the job after what it is doing just now; what is done stays done."""
    job = _job(call)
    moved = jobs.cancel(call.console.acts, job["id"], by(call))
    said = "It ends after the rows that it has in hand." if moved else "It had ended already."
    return go(call, at(call.path.get("tenant"), "jobs", job["id"]), said)


def _job(call: Call) -> View:
    found, tenant = jobs.show(call.console.reads, int(call.path["id"])), call.path.get("tenant")
    return existing(found if found is not None and tenant in (None, found["tenant"]) else None, "job")


PAGES: Final = [
    page
    for under in ("", "/t/{tenant}")
    for page in (
        Page(f"{under}/jobs", "viewer", "jobs.html", listed),
        Page(f"{under}/jobs/{{id:int}}", "viewer", "job.html", one),
    )
]
ACTS: Final = [Act(f"{under}/jobs/{{id:int}}/cancel", "operator", cancel) for under in ("", "/t/{tenant}")]
