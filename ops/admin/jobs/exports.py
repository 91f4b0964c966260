"""The exports of a tenant's ledger, with how long the file of each is there."""

from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Engine

from ops.admin.jobs.jobs import view
from ops.admin.read_session import snapshot
from ops.admin.views import View, rfc3339
from pipeline.store import jobs as store
from schemas.job import JobKind

FILES_KEPT: Final = 86_400.0  # seconds after which the file of an export is erased


def exports(engine: Engine, tenant: str, most: int) -> list[View]:
    """The newest exports of the tenant, as jobs with `file_until`."""
    return [{**shown, "file_until": file_until(shown)} for shown in newest(engine, tenant, "export", most)]


def newest(engine: Engine, tenant: str, kind: JobKind, most: int) -> list[View]:
    """The newest jobs of the tenant of one kind."""
    with snapshot(engine) as conn:
        return [view(row) for row in store.of_kind(conn, tenant, kind, most)]


def file_until(job: View) -> str | None:
    """Until when the file of a job can be fetched; None if it has none, or none any more."""
    if job["kind"] != "export" or job["state"] != "done" or job["ended_at"] is None:
        return None
    end = datetime.fromisoformat(job["ended_at"]) + timedelta(seconds=FILES_KEPT)
    return rfc3339(end) if end > datetime.now(UTC) else None
