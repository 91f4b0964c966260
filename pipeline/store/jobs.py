"""Statements on jobs. A run writes under its lease only: once another process has the job, nothing of the former is taken."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy import RowMapping as Row

from schemas.job import JobKind, JobState

ADD = text("""
    INSERT INTO job (kind, tenant, arguments, who, total, place, audit)
    VALUES (:kind, :tenant, CAST(:arguments AS jsonb), :who, :total, CAST(:place AS jsonb), :audit) RETURNING id""")

GET = text("SELECT * FROM job WHERE id = :id")

# Newest first, in pages by id.
OF_TENANT = text("SELECT * FROM job WHERE tenant = :tenant AND id < :before ORDER BY id DESC LIMIT :limit")
ALL = text("SELECT * FROM job WHERE id < :before ORDER BY id DESC LIMIT :limit")
OF_KIND = text("SELECT * FROM job WHERE tenant = :tenant AND kind = :kind ORDER BY id DESC LIMIT :limit")

# The oldest that nobody runs. A run that stands still in a transaction has locked its job, which is skipped until Postgres ends
# that transaction.
TAKE = text("""
    UPDATE job SET state = 'running', lease = :lease, lease_until = now() + make_interval(secs => :seconds), owner = :owner,
                   started_at = coalesce(started_at, now()), runs = runs + 1
    WHERE id = (SELECT id FROM job WHERE kind = ANY(CAST(:kinds AS text[]))
                  AND (state = 'queued' OR (state = 'running' AND lease_until < now()))
                ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING *""")

# Locked for the chunk's transaction.
HOLD = text("SELECT * FROM job WHERE id = :id AND lease = :lease AND state = 'running' FOR UPDATE")

MOVE = text("""
    UPDATE job SET done = :done, "left" = CAST(:left AS jsonb), place = CAST(:place AS jsonb), runs = 0,
                   total = CASE WHEN total < :done THEN :done ELSE total END,
                   lease_until = now() + make_interval(secs => :seconds)
    WHERE id = :id AND lease = :lease AND state = 'running'""")

BEAT = text("""
    UPDATE job SET lease_until = now() + make_interval(secs => :seconds), done = coalesce(:done, done)
    WHERE id = :id AND lease = :lease AND state = 'running' RETURNING cancel_by""")

PUT_BACK = text("""
    UPDATE job SET state = 'queued', lease_until = NULL, runs = 0 WHERE id = :id AND lease = :lease AND state = 'running'""")

# A cancelled job that nobody runs any more is ended by whoever takes it.
FINISH = text("""
    UPDATE job SET state = :state, ended_at = now(), lease_until = NULL, "left" = CAST(:left AS jsonb), error = :error,
                   result = CAST(:result AS jsonb), done = :done
    WHERE id = :id AND lease = :lease AND state = 'running'""")

CANCEL = text("""
    UPDATE job SET cancel_by = coalesce(cancel_by, :who),
                   state = CASE state WHEN 'queued' THEN 'cancelled' ELSE state END,
                   ended_at = CASE state WHEN 'queued' THEN now() END
    WHERE id = :id AND state IN ('queued', 'running') RETURNING state, audit""")

ADD_PART = text("INSERT INTO job_file (job_id, lease, part, data) VALUES (:id, :lease, :part, :data)")
DROP_PARTS = text("DELETE FROM job_file WHERE job_id = :id AND lease IS DISTINCT FROM CAST(:lease AS uuid)")
PART = text("SELECT data FROM job_file WHERE job_id = :id AND lease = :lease AND part = :part")

DROP_FILES = text("""
    DELETE FROM job_file USING job
    WHERE job.id = job_id AND job.ended_at IS NOT NULL AND job.ended_at < now() - make_interval(secs => :seconds)""")
DROP_JOBS = text("""
    DELETE FROM job WHERE id IN (
      SELECT id FROM job WHERE ended_at < now() - make_interval(secs => :seconds) ORDER BY ended_at LIMIT 1000)""")


def add(
    conn: Connection,
    kind: JobKind,
    tenant: str | None,
    arguments: Mapping[str, Any],
    who: str,
    total: int | None,
    place: Mapping[str, Any],
    audit: int,
) -> int:
    """Queues a job, whose act the audit has begun; returns its id."""
    asked = {"kind": kind, "tenant": tenant, "who": who, "total": total, "audit": audit}
    return int(conn.execute(ADD, {**asked, "arguments": json.dumps(arguments), "place": json.dumps(place)}).scalar_one())


def get(conn: Connection, id_: int) -> Row | None:
    """The job; None if there is none."""
    return conn.execute(GET, {"id": id_}).mappings().one_or_none()


def listed(conn: Connection, tenant: str | None, before: int, limit: int) -> Sequence[Row]:
    """The `limit` newest jobs with ids below `before`, of a tenant or, if it is None, of all."""
    asked = {"before": before, "limit": limit}
    if tenant is None:
        return conn.execute(ALL, asked).mappings().all()
    return conn.execute(OF_TENANT, {**asked, "tenant": tenant}).mappings().all()


def of_kind(conn: Connection, tenant: str, kind: JobKind, limit: int) -> Sequence[Row]:
    """The newest jobs of a tenant of one kind."""
    return conn.execute(OF_KIND, {"tenant": tenant, "kind": kind, "limit": limit}).mappings().all()


def take(conn: Connection, lease: UUID, owner: str, seconds: float, kinds: Sequence[JobKind]) -> Row | None:
    """Leases the oldest job of these kinds that is queued, or whose lease has ended, for that many seconds; None: none is."""
    asked = {"lease": lease, "owner": owner, "seconds": seconds, "kinds": list(kinds)}
    return conn.execute(TAKE, asked).mappings().one_or_none()


def hold(conn: Connection, id_: int, lease: UUID) -> Row | None:
    """The job, locked until the transaction ends; None if it is not run under this lease any more."""
    return conn.execute(HOLD, {"id": id_, "lease": lease}).mappings().one_or_none()


def move(
    conn: Connection, id_: int, lease: UUID, done: int, left: Mapping[str, int], place: Mapping[str, Any], seconds: float
) -> None:
    """Records how far a job is that is held, and renews its lease."""
    asked = {"id": id_, "lease": lease, "done": done, "seconds": seconds}
    conn.execute(MOVE, {**asked, "left": json.dumps(left), "place": json.dumps(place)})


def beat(conn: Connection, id_: int, lease: UUID, seconds: float, done: int | None) -> Row | None:
    """Renews the lease, and says who asked to cancel the job; None if the lease is lost."""
    return conn.execute(BEAT, {"id": id_, "lease": lease, "seconds": seconds, "done": done}).mappings().one_or_none()


def put_back(conn: Connection, id_: int, lease: UUID) -> None:
    """Queues a job again whose process is to end."""
    conn.execute(PUT_BACK, {"id": id_, "lease": lease})


def finish(
    conn: Connection,
    id_: int,
    lease: UUID,
    state: JobState,
    done: int,
    left: Mapping[str, int],
    error: str | None = None,
    result: Mapping[str, Any] | None = None,
) -> bool:
    """Ends a job; returns whether it was still run under this lease."""
    asked = {"id": id_, "lease": lease, "state": state, "done": done, "error": error, "left": json.dumps(left)}
    return conn.execute(FINISH, {**asked, "result": None if result is None else json.dumps(result)}).rowcount > 0


def cancel(conn: Connection, id_: int, who: str) -> Row | None:
    """Ends a job that is queued, or asks the process that runs it to; its state and act. None if it has ended already."""
    return conn.execute(CANCEL, {"id": id_, "who": who}).mappings().one_or_none()


def add_part(conn: Connection, id_: int, lease: UUID, part: int, data: bytes) -> None:
    """Adds a part to the file of a job."""
    conn.execute(ADD_PART, {"id": id_, "lease": lease, "part": part, "data": data})


def drop_parts(conn: Connection, id_: int, but: UUID | None) -> None:
    """Deletes the parts of a job's file, except those that were written under a lease."""
    conn.execute(DROP_PARTS, {"id": id_, "lease": but})


def part(conn: Connection, id_: int, lease: UUID, number: int) -> bytes | None:
    """A part of a job's file; None if there is none of that number."""
    found = conn.execute(PART, {"id": id_, "lease": lease, "part": number}).scalar()
    return None if found is None else bytes(found)


def drop_old(conn: Connection, files: float, jobs: float) -> int:
    """Deletes files of jobs that ended that many seconds ago, and jobs that ended longer ago; returns how many jobs."""
    conn.execute(DROP_FILES, {"seconds": files})
    return conn.execute(DROP_JOBS, {"seconds": jobs}).rowcount
