"""Drops what is no longer needed: attempts by whole days, and dead letters that were closed long ago."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import Connection, Engine

from ops.admin.bulk import Act, Pace, noted, perform, uninterrupted
from ops.admin.read_session import snapshot
from ops.errors import OpsError
from ops.runtime.db import passes
from pipeline.store.dead_letters import dead_letters
from pipeline.store.deliveries import attempt_partitions
from pipeline.store.deliveries.attempt_partitions import Partition


def old_partitions(engine: Engine, before: datetime) -> list[Partition]:
    """The partitions whose attempts all began before then, oldest first."""
    with snapshot(engine) as conn:
        return [each for each in attempt_partitions.partitions(conn) if each.end <= before.astimezone(UTC).date()]


def drop_partitions(engine: Engine, act: Act, old: Sequence[Partition], show: Callable[[int], None]) -> int:
    """Drops partitions one by one; returns how many. Readers and writers of attempts do not wait for it.

    Raises `OpsError` if another session keeps one locked; those dropped before stay dropped.
    """
    with noted(engine, act, len(old)) as tally:
        for each in old:
            with uninterrupted():
                _drop(engine, each)
                tally.done += 1
            show(tally.done)
    return tally.done


def count_old_dead_letters(engine: Engine, before: datetime) -> int:
    """How many dead letters were replayed or discarded before then."""
    with snapshot(engine) as conn:
        return dead_letters.count_decided(conn, before)


def drop_dead_letters(engine: Engine, act: Act, planned: int, before: datetime, pace: Pace, show: Callable[[int], None]) -> int:
    """Deletes the dead letters that were replayed or discarded before then; returns how many."""
    return perform(engine, act, planned, partial(_delete, before), pace, show)


def _delete(before: datetime, conn: Connection, size: int) -> int | None:
    return dead_letters.delete_decided(conn, before, size) or None


def _drop(engine: Engine, partition: Partition) -> None:
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            attempt_partitions.drop(conn, partition)
    except Exception as error:
        if passes(error):
            raise OpsError(
                f"{partition.name} is in use: another session has been reading attempts for a while; run the same command again"
            ) from error
        raise
