"""Statements on who pulls a mailbox and when. One at a time: what a pull writes is fenced by the epoch of its lease."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from pipeline.store.storable_text import storable

# Which mailboxes are due, and nobody has been asked to pull. What was asked for is lost when its message is: asked again later.
DUE = text("""
    UPDATE mailbox SET enqueued_at = :now WHERE id IN (
      SELECT id FROM mailbox WHERE state = 'active' AND next_pull_at <= :now
        AND (lease_until IS NULL OR lease_until <= :now) AND (enqueued_at IS NULL OR enqueued_at <= :lost)
      ORDER BY next_pull_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING id, slow""")

# Nobody waits for anybody: who does not get it leaves it to who has it.
TAKE = text("""
    UPDATE mailbox SET lease_epoch = lease_epoch + 1, lease_owner = :owner, lease_until = :until, enqueued_at = NULL
    WHERE id = :id AND state = 'active' AND (lease_until IS NULL OR lease_until <= :now)
    RETURNING lease_epoch, failures, failing_since, began_at, reconciled_at, slow""")

# Locks the row, so that no later epoch begins before what is written with it is committed.
STILL_MINE = text("""
    UPDATE mailbox SET lease_until = :until WHERE id = :id AND lease_epoch = :epoch AND lease_until IS NOT NULL
    RETURNING state = 'active'""")

EXTEND = text("""
    UPDATE mailbox SET lease_until = :until FROM unnest(CAST(:ids AS int[]), CAST(:epochs AS bigint[])) AS held (held_id, epoch)
    WHERE id = held_id AND lease_epoch = epoch AND lease_until IS NOT NULL""")

# Whoever was asked was not reached: ask again.
UNASKED = text("UPDATE mailbox SET enqueued_at = NULL WHERE id = ANY(CAST(:ids AS int[]))")

BEGIN = text("UPDATE mailbox SET began_at = coalesce(began_at, :now) WHERE id = :id RETURNING began_at")
RECONCILED = text("UPDATE mailbox SET reconciled_at = :now WHERE id = :id")

# A bell that rang while it was pulled is heard now.
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

# Through no fault of the mailbox: nothing is held against it.
HANDED_BACK = text("""
    UPDATE mailbox SET lease_owner = NULL, lease_until = NULL, next_pull_at = :next, enqueued_at = NULL
    WHERE id = :id AND lease_epoch = :epoch AND lease_until IS NOT NULL""")

# Whatever is being pulled was begun on terms that hold no more: nothing of it may be written, and nobody waits for it.
REVOKED = text("""
    UPDATE mailbox SET lease_epoch = lease_epoch + 1, lease_owner = NULL, lease_until = NULL, enqueued_at = NULL
    WHERE id = :id""")

RING = text("""
    UPDATE mailbox SET rung_at = :now, next_pull_at = least(next_pull_at, :now)
    WHERE id = ANY(CAST(:ids AS int[])) AND state = 'active' AND (failures = 0 OR :anyway)""")


@dataclass(frozen=True, slots=True)
class DueMailbox:
    """A mailbox that somebody has to be asked to pull; a slow one beside the others."""

    id: int
    slow: bool


@dataclass(frozen=True, slots=True)
class PullLease:
    """The right to pull a mailbox, until it ends or a later epoch begins; and what is known of how it went before."""

    mailbox_id: int
    epoch: int
    failures: int
    failing_since: datetime | None
    began_at: datetime | None
    reconciled_at: datetime | None
    slow: bool


def due(conn: Connection, now: datetime, lost: datetime, limit: int) -> Sequence[DueMailbox]:
    """The mailboxes that are due, those first that wait longest. A message sent before `lost` came to nothing."""
    found = conn.execute(DUE, {"now": now, "lost": lost, "limit": limit})
    return [DueMailbox(row.id, row.slow) for row in found]


def take(conn: Connection, mailbox_id: int, owner: str, now: datetime, until: datetime) -> PullLease | None:
    """The lease; None when another holds it, or the mailbox is not active or not there."""
    row = conn.execute(TAKE, {"id": mailbox_id, "owner": owner, "now": now, "until": until}).one_or_none()
    return None if row is None else PullLease(mailbox_id, *row)


def still_mine(conn: Connection, lease: PullLease, until: datetime) -> bool:
    """Whether the lease holds and the mailbox is active still; extends it, and locks it until the transaction ends."""
    row = _one(conn, STILL_MINE, lease, until=until)
    return row is not None and bool(row[0])


def extend(conn: Connection, leases: Sequence[PullLease], until: datetime) -> None:
    """Holds the leases that still hold until `until`."""
    held = {"ids": [each.mailbox_id for each in leases], "epochs": [each.epoch for each in leases]}
    conn.execute(EXTEND, {**held, "until": until})


def unasked(conn: Connection, ids: Sequence[int]) -> None:
    """The message that asks for a pull could not be sent: the mailboxes are due as before."""
    conn.execute(UNASKED, {"ids": list(ids)})


def begin(conn: Connection, lease: PullLease, now: datetime) -> datetime:
    """When the mailbox was first read: now, if it was not before."""
    began: datetime = conn.execute(BEGIN, {"id": lease.mailbox_id, "now": now}).scalar_one()
    return began


def reconciled(conn: Connection, lease: PullLease, now: datetime) -> None:
    """Writes that what is there is being compared with what is held, from now on."""
    conn.execute(RECONCILED, {"id": lease.mailbox_id, "now": now})


def succeeded(
    conn: Connection, lease: PullLease, began: datetime, now: datetime, next_: datetime, *, enqueued: bool, slow: bool
) -> None:
    """Gives the lease back after a pull that began at `began`. `enqueued`: a message that asks for the next is being sent."""
    moved = {"id": lease.mailbox_id, "epoch": lease.epoch, "began": began, "now": now, "next": next_, "slow": slow}
    conn.execute(SUCCEEDED, {**moved, "enqueued": now if enqueued else None})


def failed(conn: Connection, lease: PullLease, error: str, now: datetime, next_: datetime) -> tuple[int, datetime] | None:
    """Gives the lease back after a pull that failed: how often in a row, and since when; None when it was lost before."""
    row = _one(conn, FAILED, lease, error=storable(error), now=now, next=next_)
    return None if row is None else (row[0], row[1])


def hand_back(conn: Connection, lease: PullLease, next_: datetime) -> None:
    """Gives the lease back without a word on the mailbox."""
    conn.execute(HANDED_BACK, {"id": lease.mailbox_id, "epoch": lease.epoch, "next": next_})


def revoke(conn: Connection, mailbox_id: int) -> None:
    """Ends whoever's lease: a pull under way writes nothing more, not even that it failed. Locks the mailbox."""
    conn.execute(REVOKED, {"id": mailbox_id})


def ring(conn: Connection, ids: Sequence[int], now: datetime, *, anyway: bool = False) -> int:
    """Makes mailboxes due at once; how many. One that fails keeps its wait, unless `anyway`."""
    return conn.execute(RING, {"ids": list(ids), "now": now, "anyway": anyway}).rowcount if ids else 0


def _one(conn: Connection, statement: Any, lease: PullLease, **values: Any) -> Any:
    return conn.execute(statement, {"id": lease.mailbox_id, "epoch": lease.epoch, **values}).one_or_none()
