"""Statements on leases of mailboxes: one process pulls a mailbox at a time, and the lease's epoch fences what it writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from pipeline.store.storable_text import storable

# Due mailboxes for which no message that asks for a pull was sent, or so long ago that the message must be lost.
DUE = text("""
    UPDATE mailbox SET enqueued_at = :now WHERE id IN (
      SELECT id FROM mailbox WHERE state = 'active' AND next_pull_at <= :now
        AND (lease_until IS NULL OR lease_until <= :now) AND (enqueued_at IS NULL OR enqueued_at <= :lost)
      ORDER BY next_pull_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING id, slow""")

# Never waits for the lease: a process that does not get it leaves the mailbox to the holder.
TAKE = text("""
    UPDATE mailbox SET lease_epoch = lease_epoch + 1, lease_owner = :owner, lease_until = :until, enqueued_at = NULL
    WHERE id = :id AND state = 'active' AND (lease_until IS NULL OR lease_until <= :now)
    RETURNING lease_epoch, failures, failing_since, began_at, reconciled_at, slow""")

# Locks the row, so that no later epoch begins before this transaction's writes are committed.
STILL_MINE = text("""
    UPDATE mailbox SET lease_until = :until WHERE id = :id AND lease_epoch = :epoch AND lease_until IS NOT NULL
    RETURNING state = 'active'""")

EXTEND = text("""
    UPDATE mailbox SET lease_until = :until FROM unnest(CAST(:ids AS int[]), CAST(:epochs AS bigint[])) AS held (held_id, epoch)
    WHERE id = held_id AND lease_epoch = epoch AND lease_until IS NOT NULL""")

# The message could not be sent: the mailboxes are due as before.
UNASKED = text("UPDATE mailbox SET enqueued_at = NULL WHERE id = ANY(CAST(:ids AS int[]))")

BEGIN = text("UPDATE mailbox SET began_at = coalesce(began_at, :now) WHERE id = :id RETURNING began_at")
RECONCILED = text("UPDATE mailbox SET reconciled_at = :now WHERE id = :id")

# If a notification came during the pull, the next pull is due now.
SUCCEEDED = text("""
    UPDATE mailbox SET lease_owner = NULL, lease_until = NULL, failures = 0, failing_since = NULL, error = NULL,
      pulled_at = :now, began_at = coalesce(began_at, :now), slow = :slow, enqueued_at = :enqueued,
      next_pull_at = CASE WHEN rung_at >= :began THEN CAST(:now AS timestamptz) ELSE :next END
    WHERE id = :id AND lease_epoch = :epoch AND lease_until IS NOT NULL""")

FAILED = text("""
    UPDATE mailbox SET lease_owner = NULL, lease_until = NULL, failures = failures + 1,
      failing_since = coalesce(failing_since, :now), error = :error, slow = true, next_pull_at = :next, enqueued_at = NULL
    WHERE id = :id AND lease_epoch = :epoch AND lease_until IS NOT NULL
    RETURNING failures, failing_since""")

# The pull ended through no fault of the mailbox, so its failures stay unchanged.
HANDED_BACK = text("""
    UPDATE mailbox SET lease_owner = NULL, lease_until = NULL, next_pull_at = :next, enqueued_at = NULL
    WHERE id = :id AND lease_epoch = :epoch AND lease_until IS NOT NULL""")

# A pull under way began with a configuration that is no longer valid: it may write nothing more, and nothing waits for it.
REVOKED = text("""
    UPDATE mailbox SET lease_epoch = lease_epoch + 1, lease_owner = NULL, lease_until = NULL, enqueued_at = NULL
    WHERE id = :id""")

MAKE_DUE = text("""
    UPDATE mailbox SET rung_at = :now, next_pull_at = least(next_pull_at, :now)
    WHERE id = ANY(CAST(:ids AS int[])) AND state = 'active' AND (failures = 0 OR :anyway)""")


@dataclass(frozen=True, slots=True)
class DueMailbox:
    """A mailbox for which a message that asks for a pull must be sent; `slow` ones are pulled apart from the others."""

    id: int
    slow: bool


@dataclass(frozen=True, slots=True)
class PullLease:
    """The right to pull a mailbox, until it ends or a later epoch begins; and the results of earlier pulls."""

    mailbox_id: int
    epoch: int
    failures: int
    failing_since: datetime | None
    began_at: datetime | None
    reconciled_at: datetime | None
    slow: bool


def due(conn: Connection, now: datetime, lost: datetime, limit: int) -> Sequence[DueMailbox]:
    """The due mailboxes, those that wait longest first. Messages sent before `lost` count as lost."""
    found = conn.execute(DUE, {"now": now, "lost": lost, "limit": limit})
    return [DueMailbox(row.id, row.slow) for row in found]


def take(conn: Connection, mailbox_id: int, owner: str, now: datetime, until: datetime) -> PullLease | None:
    """The lease; None when another process holds it, or the mailbox is not active or does not exist."""
    row = conn.execute(TAKE, {"id": mailbox_id, "owner": owner, "now": now, "until": until}).one_or_none()
    return None if row is None else PullLease(mailbox_id, *row)


def still_mine(conn: Connection, lease: PullLease, until: datetime) -> bool:
    """Whether the lease holds and the mailbox is still active. Extends the lease, and locks it until the transaction ends."""
    row = _one(conn, STILL_MINE, lease, until=until)
    return row is not None and bool(row[0])


def extend(conn: Connection, leases: Sequence[PullLease], until: datetime) -> None:
    """Extends those leases that still hold to `until`."""
    held = {"ids": [each.mailbox_id for each in leases], "epochs": [each.epoch for each in leases]}
    conn.execute(EXTEND, {**held, "until": until})


def unasked(conn: Connection, ids: Sequence[int]) -> None:
    """Makes mailboxes due as before, because the message that asks for a pull could not be sent."""
    conn.execute(UNASKED, {"ids": list(ids)})


def begin(conn: Connection, lease: PullLease, now: datetime) -> datetime:
    """When the mailbox was first read; sets that to `now` if it never was."""
    began: datetime = conn.execute(BEGIN, {"id": lease.mailbox_id, "now": now}).scalar_one()
    return began


def reconciled(conn: Connection, lease: PullLease, now: datetime) -> None:
    """Records that a comparison of the mailbox with the mails held begins now."""
    conn.execute(RECONCILED, {"id": lease.mailbox_id, "now": now})


def succeeded(
    conn: Connection, lease: PullLease, began: datetime, now: datetime, next_: datetime, *, enqueued: bool, slow: bool
) -> None:
    """Returns the lease after a successful pull that began at `began`. `enqueued`: a message for the next one is being sent."""
    moved = {"id": lease.mailbox_id, "epoch": lease.epoch, "began": began, "now": now, "next": next_, "slow": slow}
    conn.execute(SUCCEEDED, {**moved, "enqueued": now if enqueued else None})


def failed(conn: Connection, lease: PullLease, error: str, now: datetime, next_: datetime) -> tuple[int, datetime] | None:
    """Returns the lease after a failed pull. The result: failures in a row, and since when; None if the lease was lost."""
    row = _one(conn, FAILED, lease, error=storable(error), now=now, next=next_)
    return None if row is None else (row[0], row[1])


def hand_back(conn: Connection, lease: PullLease, next_: datetime) -> None:
    """Returns the lease without recording success or failure."""
    conn.execute(HANDED_BACK, {"id": lease.mailbox_id, "epoch": lease.epoch, "next": next_})


def revoke(conn: Connection, mailbox_id: int) -> None:
    """Ends any lease: a pull under way writes nothing more, not even that it failed. Locks the mailbox's row."""
    conn.execute(REVOKED, {"id": mailbox_id})


def make_due(conn: Connection, ids: Sequence[int], now: datetime, *, anyway: bool = False) -> int:
    """Makes mailboxes due at once; returns how many. Failing ones keep their wait, unless `anyway`."""
    return conn.execute(MAKE_DUE, {"ids": list(ids), "now": now, "anyway": anyway}).rowcount if ids else 0


def _one(conn: Connection, statement: Any, lease: PullLease, **values: Any) -> Any:
    return conn.execute(statement, {"id": lease.mailbox_id, "epoch": lease.epoch, **values}).one_or_none()
