"""Drops what is no longer needed: attempts by whole days, and dead letters that were closed long ago."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import Connection, Engine

from ops.admin.bulk import Act, Pace, perform
from ops.admin.erasure.keeping import remove_rows
from ops.admin.read_session import snapshot
from ops.errors import OpsError
from pipeline.store.dead_letters import dead_letters
from pipeline.store.deliveries import attempt_partitions
from pipeline.store.deliveries.attempt_partitions import Partition


def old_partitions(engine: Engine, before: datetime) -> list[Partition]:
    """The partitions whose attempts all began before then, oldest first."""
    with snapshot(engine) as conn:
        return [each for each in attempt_partitions.partitions(conn) if each.end <= before.astimezone(UTC).date()]


def drop_attempts(engine: Engine, act: Act, planned: int, before: datetime, show: Callable[[int], None]) -> int:
    """Drops the days whose attempts all began before then, as the eraser does; returns how many.

    Raises `OpsError` if others use attempts for too long; those dropped before stay dropped.
    """
    dropped = remove_rows(engine, act, "attempts", planned, before, show)
    if dropped < planned:
        raise OpsError(
            f"dropped {dropped} of {planned} days: another session has been reading attempts for a while; "
            "run the same command again"
        )
    return dropped


def count_old_dead_letters(engine: Engine, before: datetime) -> int:
    """How many dead letters were replayed or discarded before then."""
    with snapshot(engine) as conn:
        return dead_letters.count_decided(conn, before)


def drop_dead_letters(engine: Engine, act: Act, planned: int, before: datetime, pace: Pace, show: Callable[[int], None]) -> int:
    """Deletes the dead letters that were replayed or discarded before then; returns how many."""
    return perform(engine, act, planned, partial(_delete, before), pace, show)


def _delete(before: datetime, conn: Connection, size: int) -> int | None:
    return dead_letters.delete_decided(conn, before, size) or None
