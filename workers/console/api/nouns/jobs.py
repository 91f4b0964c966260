"""Jobs: listed, shown, cancelled; and the file of an export."""

from collections.abc import Iterator
from typing import Annotated, Any, Final

from pydantic import Field

from ops.admin.jobs import jobs
from ops.errors import Unknown
from schemas.access import EVERYWHERE, Role
from schemas.given import Slug
from workers.console.api.nouns.rows import Job
from workers.console.api.operation import BYTES, Answer, Asked, Operation
from workers.console.api.paging import page, seen
from workers.console.api.shapes import Changed, Paged, Why, page_of
from workers.console.call import Forbidden, permit


class JobQuery(Paged):
    """Whose jobs."""

    tenant: Annotated[Slug | None, Field(description="needed if you see several tenants, but not all")] = None


JobPage: Final = page_of(Job)


def _listed(asked: Asked) -> Answer:
    return page(asked, jobs.listed(asked.reads, seen(asked), asked.query.cursor, asked.query.limit))


def _job(asked: Asked, role: Role = "viewer") -> dict[str, Any]:
    """The job in the path, if the principal has the role where it is of. Raises `Unknown`, and `Refused`."""
    found = jobs.show(asked.reads, asked.id)
    if found is None:
        raise Unknown(f"there is no job {asked.id}")
    if asked.call.principal.role_in(found["tenant"] or EVERYWHERE) is None:
        raise Forbidden(404, "not_found", f"there is no job {asked.id}")
    permit(asked.call.principal, role, found["tenant"])
    return found


def _shown(asked: Asked) -> Answer:
    return Answer(_job(asked))


def _cancelled(asked: Asked) -> Answer:
    _job(asked, "operator")
    return Answer({"changed": jobs.cancel(asked.acts, asked.id, asked.by(asked.body.reason))})


def _file(asked: Asked) -> Answer:
    found = _job(asked, "operator")
    parts = jobs.fetched(asked.acts, asked.id, asked.by())
    name = f"{found['tenant']}-{asked.id}.jsonl"
    return Answer(
        raw=_streamed(parts), headers={"Content-Disposition": f'attachment; filename="{name}"', "Content-Type": BYTES}
    )


def _streamed(parts: Iterator[bytes]) -> Iterator[bytes]:
    yield from parts


OPERATIONS: Final = (
    Operation("list_jobs", "GET", "/jobs", "viewer", "any", _listed, "Jobs, newest first", {200: JobPage}, JobQuery),
    Operation("show_job", "GET", "/jobs/{id}", "viewer", "any", _shown, "A job and its progress", {200: Job}),
    Operation(
        "cancel_job",
        "POST",
        "/jobs/{id}/cancel",
        "operator",
        "any",
        _cancelled,
        "End a job after its chunk; what it did stays done",
        {200: Changed},
        body=Why,
        act=True,
        keyed="taken",
    ),
    Operation(
        "fetch_export",
        "GET",
        "/jobs/{id}/file",
        "operator",
        "any",
        _file,
        "The file of an export, for a day",
        {200: None},
        media=BYTES,
        fresh=True,
        description="It holds content: the audit says who fetched it, before it is answered.",
    ),
)
