"""How operations start jobs, or with `dry_run` say what these would be on."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from ops.admin.jobs import jobs
from schemas.job import JobKind
from workers.console.api.nouns.rows import Job, Preview
from workers.console.api.operation import Answer, Asked
from workers.console.api.paths import PREFIX
from workers.console.api.shapes import Flag, Given

ANSWERS: Final[Mapping[int, Any]] = {200: Preview, 202: Job}


class DryRun(Given):
    """The query of what starts a job."""

    dry_run: Flag = False


def begin(
    asked: Asked,
    kind: JobKind,
    body: BaseModel | Mapping[str, Any],
    reason: str | None = None,
    expected: int | None = None,
) -> Answer:
    """The job that was started, at `Location`, if it is on as many as `expected`; or with `dry_run` what it would be on."""
    given = body if isinstance(body, Mapping) else body.model_dump(mode="json", exclude_unset=True, exclude={"reason", "all"})
    if asked.query is not None and getattr(asked.query, "dry_run", False):
        return Answer(jobs.preview(asked.reads, kind, asked.tenant, given))
    id_ = jobs.start(asked.acts, kind, asked.tenant, given, asked.by(reason or getattr(body, "reason", None)), expected)
    return Answer(jobs.show(asked.acts, id_), 202, {"Location": f"{PREFIX}/jobs/{id_}"})
