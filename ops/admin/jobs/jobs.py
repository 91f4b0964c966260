"""Starts, shows, lists and cancels jobs."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy import RowMapping as Row

from ops.admin.jobs import arguments as given
from ops.admin.jobs.arguments import Arguments, MissedForGood
from ops.admin.jobs.plans import plan
from ops.admin.read_session import snapshot
from ops.admin.search import cursors
from ops.admin.search.found import Found
from ops.admin.views import View, rfc3339
from ops.errors import OpsError, Unknown
from ops.runtime.db import transaction
from pipeline.store import jobs as store
from pipeline.store.admin import audit
from schemas.access import Actor
from schemas.job import JobKind, JobState

SAMPLES: Final = 5
_NO_END: Final = 2**63 - 1

#: What the audit calls them: as the commands that do the same.
ACTS: Final[Mapping[JobKind, str]] = {
    "replay": "dead replay",
    "discard": "dead discard",
    "endpoint_replay": "endpoint replay",
    "endpoint_discard": "endpoint discard",
    "redeliver": "redeliver",
    "retry": "retry",
    "verify": "verify",
    "export": "export",
    "erase": "erase",
}


def preview(engine: Engine, kind: JobKind, tenant: str | None, arguments: Mapping[str, Any]) -> View:
    """Counts what a job would act on, with five samples. Raises `OpsError` where `start` does."""
    wanted = given.read(kind, tenant, arguments)
    with snapshot(engine) as conn:
        return {"kind": kind, "tenant": tenant, **plan(conn, kind, tenant, wanted).view(SAMPLES)}


def start(
    engine: Engine,
    kind: JobKind,
    tenant: str | None,
    arguments: Mapping[str, Any],
    by: Actor,
    expected: int | None = None,
) -> int:
    """Counts, begins the act in the audit and queues the job, in one transaction; returns its id.

    Raises `OpsError` for arguments that it cannot have, for names that do not exist, for an act that is not possible now,
    and for a count that is not the `expected` one.
    """
    wanted = given.read(kind, tenant, arguments)
    now = datetime.now(UTC)
    with transaction(engine) as conn:
        planned = plan(conn, kind, tenant, wanted)
        if expected is not None and planned.total != expected:
            raise OpsError(f"it would be on {planned.total} now, and not on {expected}: count anew, and look at it again")
        asked = wanted.model_dump(mode="json", exclude_none=True)
        act = audit.record(conn, by, ACTS[kind], _filter(tenant, wanted), planned.total or 0, now, "begun")
        return store.add(conn, kind, tenant, asked, by.who, planned.total, planned.place, act)


def show(engine: Engine, id_: int) -> View | None:
    """One job; None if there is none."""
    with snapshot(engine) as conn:
        row = store.get(conn, id_)
    return None if row is None else view(row)


def listed(engine: Engine, tenant: str | None, cursor: str | None, limit: int) -> Found:
    """Jobs of a tenant or, if it is None, of all, newest first. Raises `BadCursor`."""
    filter_ = {"jobs": tenant}
    before = _NO_END if cursor is None else cursors.decode(cursor, filter_)[0]
    if not isinstance(before, int):
        raise cursors.BadCursor("this cursor is not of a list of jobs: start without one")
    with snapshot(engine) as conn:
        rows = store.listed(conn, tenant, before, limit + 1)
    after = cursors.encode([rows[limit - 1]["id"]], filter_) if len(rows) > limit else None
    return Found([view(row) for row in rows[:limit]], after)


def cancel(engine: Engine, id_: int, by: Actor) -> bool:
    """Ends a queued job, or asks for the end of one that runs, after its chunk; returns whether it had not ended before."""
    with transaction(engine) as conn:
        found = store.cancel(conn, id_, by.who)
        if found is None:
            return False
        now = datetime.now(UTC)
        if found["state"] == "cancelled":
            audit.end(conn, found["audit"], 0, now)
        audit.record(conn, by, "job cancel", {"job": id_}, 1, now, "done")
    return True


def fetched(engine: Engine, id_: int, by: Actor) -> Iterator[bytes]:
    """The file of an export, part by part; the audit says first who fetched it. Raises `Unknown` if it has no file."""
    job, lease = file_of(engine, id_)
    with transaction(engine) as conn:
        about = {"tenant": job["tenant"], "job": id_}
        audit.record(conn, by, "export fetch", about, job["done"], datetime.now(UTC), "done")
    return file_parts(engine, id_, lease)


def file_parts(engine: Engine, id_: int, lease: UUID) -> Iterator[bytes]:
    """The file of an export that is done, part by part. It ends early if the file is erased meanwhile."""
    number = 0
    while True:
        with transaction(engine) as conn:
            data = store.part(conn, id_, lease, number)
        if data is None:
            return
        yield data
        number += 1


def file_of(engine: Engine, id_: int) -> tuple[View, UUID]:
    """The job of an export and the lease under which its file was written. Raises `OpsError` if it has no file (any more)."""
    with transaction(engine) as conn:
        row = store.get(conn, id_)
        there = row is not None and row["kind"] == "export" and row["state"] == "done"
        if row is None or not there or store.part(conn, id_, row["lease"], 0) is None:
            raise Unknown(f"job {id_} has no file: only an export has one, from when it is done until a day later")
    return view(row), row["lease"]


def view(row: Row) -> View:
    """A job as it is shown. `left`: how many were left as they were, by reason; `act`: its id in the audit."""
    plain = ("id", "kind", "tenant", "arguments", "who", "state", "total", "done", "left", "error", "result", "owner")
    times = ("created_at", "started_at", "ended_at")
    return {
        **{name: row[name] for name in plain},
        **{name: rfc3339(row[name]) for name in times},
        "rate": row["arguments"].get("rate"),
        "per_second": _per_second(row),
        "cancel_requested": row["cancel_by"] is not None,
        "cancelled_by": row["cancel_by"],
        "act": row["audit"],
    }


def finish(conn: Connection, row: Row, lease: UUID, state: JobState, error: str | None, result: View | None) -> bool:
    """Ends a job and its act in the audit; returns whether it was still run under this lease."""
    left = dict(row["left"])
    gone = (row["total"] or 0) - row["done"] - sum(left.values())
    if state == "done" and gone > 0 and row["kind"] not in ("verify", "export"):
        left["others decided or changed them meanwhile"] = gone
    if not store.finish(conn, row["id"], lease, state, row["done"], left, error, result):
        return False
    audit.end(conn, row["audit"], row["done"], datetime.now(UTC))
    return True


def _filter(tenant: str | None, wanted: Arguments) -> dict[str, Any]:
    """The conditions, as the audit shows them."""
    leaves_out = {"rate", *(("enable",) if isinstance(wanted, MissedForGood) and not wanted.enable else ())}
    conditions = wanted.model_dump(mode="json", exclude_none=True, exclude=leaves_out)
    return conditions if tenant is None else {"tenant": tenant, **conditions}


def _per_second(row: Row) -> float | None:
    """Its rate so far; null before it has begun."""
    if row["started_at"] is None:
        return None
    seconds = ((row["ended_at"] or datetime.now(UTC)) - row["started_at"]).total_seconds()
    return round(row["done"] / seconds, 1) if seconds > 0 else None
