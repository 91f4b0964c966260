"""Statements on the state of moves, one row in each of the two cells; and the freeze of a tenant, and its end."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, RowMapping, text

from pipeline.store.moving.unsettled import unsettled

#: What is written where operators see what the move holds.
WHY: Final = "the tenant moves to another cell"

#: What is written on what the other cell has now.
MOVED_ON: Final = "moved to another cell with its tenant"

_COLUMNS: Final = "tenant, id, epoch, state, cell, saved, began_at, frozen_at, ended_at"
FIND = text(f"SELECT {_COLUMNS} FROM tenant_move WHERE tenant = :tenant")  # noqa: S608 - constants
HOLD = text(f"SELECT {_COLUMNS} FROM tenant_move WHERE tenant = :tenant FOR UPDATE")  # noqa: S608 - constants
ALL = text(f"SELECT {_COLUMNS} FROM tenant_move ORDER BY tenant")  # noqa: S608 - constants

# Two movers of one tenant at once would copy everything twice, and undo each other's acts.
ALONE = text("SELECT pg_try_advisory_xact_lock(hashtextextended('waxseal move ' || :tenant, 0))")

# Waits for who keeps a message just now, and has those wait who are about to.
LOCK_KEPT = text("SELECT pg_advisory_xact_lock(hashtextextended('waxseal kept ' || :tenant, 0))")

PUT = text("""
    INSERT INTO tenant_move (tenant, id, epoch, state, cell, began_at) VALUES (:tenant, :id, :epoch, :state, :cell, :now)
    ON CONFLICT (tenant) DO UPDATE SET id = :id, epoch = :epoch, state = :state, cell = :cell, saved = '{}', began_at = :now,
      frozen_at = NULL, ended_at = NULL""")

# The mover's appends pass the ledger's refusal, and a batch takes as long as its blobs.
BY_MOVER = text("""
    SELECT set_config('waxseal.moving', CAST(:id AS text), true), set_config('idle_in_transaction_session_timeout', '0', true),
           set_config('jit', 'off', true)""")

FORGET = text("DELETE FROM tenant_move WHERE tenant = :tenant")

# What the freeze changes, as it was.
SAVED = text("""
    SELECT jsonb_build_object(
      'health', coalesce((SELECT jsonb_agg(to_jsonb(health)) FROM endpoint_health AS health
                          WHERE endpoint_id = ANY(CAST(:endpoints AS int[]))), '[]'),
      'mailboxes', coalesce((SELECT jsonb_agg(jsonb_build_object('id', mailbox.id, 'state', state, 'reason', reason,
                                                                 'state_at', state_at))
                             FROM mailbox JOIN source USING (id) JOIN tenant ON tenant.id = tenant_id
                             WHERE tenant.name = :tenant), '[]'))""")

ENDPOINTS = text("SELECT endpoint.id FROM endpoint JOIN tenant ON tenant.id = tenant_id WHERE tenant.name = :tenant ORDER BY 1")

FREEZE = text("""
    UPDATE tenant_move SET state = 'moving', frozen_at = :now, saved = CAST(:saved AS jsonb)
    WHERE tenant = :tenant AND state = 'copying'""")

# As an operator holds an endpoint: nothing is claimed, and what is being sent is settled.
HOLD_ENDPOINTS = text("""
    INSERT INTO endpoint_health AS health (endpoint_id, breaker, forced, opened_at)
    SELECT id, 'open', true, :now FROM unnest(CAST(:endpoints AS int[])) AS held (id) ORDER BY id
    ON CONFLICT (endpoint_id) DO UPDATE SET breaker = 'open', forced = true, probe_at = NULL,
      opened_at = coalesce(health.opened_at, excluded.opened_at)""")
RELEASE_ENDPOINTS = text("DELETE FROM endpoint_health WHERE endpoint_id = ANY(CAST(:endpoints AS int[]))")
RESTORE_HEALTH = text("""
    INSERT INTO endpoint_health SELECT * FROM jsonb_populate_recordset(NULL::endpoint_health, CAST(:rows AS jsonb))""")

# The later epoch makes whoever pulls powerless.
HOLD_MAILBOXES = text("""
    UPDATE mailbox SET state = 'paused', reason = :why, state_at = :now, lease_epoch = lease_epoch + 1, lease_owner = NULL,
      lease_until = NULL
    FROM source JOIN tenant ON tenant.id = tenant_id WHERE source.id = mailbox.id AND tenant.name = :tenant""")
RELEASE_MAILBOXES = text("""
    UPDATE mailbox SET state = was.state, reason = was.reason, state_at = was.state_at, next_pull_at = :now
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS was (id int, state text, reason text, state_at timestamptz)
    WHERE was.id = mailbox.id""")

# Who may still append for the tenant, having looked before the freeze was committed; and who may still claim. Whoever takes the
# lock later looks later.
APPENDING = text("""
    SELECT DISTINCT virtualtransaction FROM pg_locks
    WHERE locktype = 'relation' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND relation = 'entry'::regclass AND mode = 'RowExclusiveLock' AND granted AND pid <> pg_backend_pid()""")
CLAIMING = text("""
    SELECT DISTINCT virtualtransaction FROM pg_locks
    WHERE locktype = 'relation' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND relation = 'endpoint_health'::regclass AND granted AND pid <> pg_backend_pid()""")

LEASED = text("""
    SELECT count(*) FROM delivery WHERE endpoint_id = ANY(CAST(:endpoints AS int[])) AND state = 'leased'""")

PENDING = text("SELECT EXISTS (SELECT FROM log_pending WHERE tenant = :tenant)")

END = text("UPDATE tenant_move SET state = :state, ended_at = :now WHERE tenant = :tenant AND id = :id AND state = :before")

# They are the other cell's from now on.
GIVE_UP_DELIVERIES = text(f"""
    UPDATE delivery SET state = 'discarded', next_attempt_at = NULL, lease = NULL, lease_until = NULL,
      settled_at = coalesce(settled_at, :now), error = :moved_on
    WHERE id = ANY (ARRAY(SELECT id FROM ({unsettled("CAST(:endpoints AS int[])")}) AS each))
      AND state IN ('pending', 'leased', 'paused', 'dead')""")  # noqa: S608 - constants
GIVE_UP_ENDPOINTS = text("""
    UPDATE endpoint SET state = 'removed', reason = NULL WHERE id = ANY(CAST(:endpoints AS int[])) AND state <> 'removed'""")
GIVE_UP_LETTERS = text("""
    UPDATE dead_letter SET state = 'discarded', detail = :moved_on, decided_at = :now,
      decided_by = 'tenant move' WHERE tenant = :tenant AND state = 'open'""")


@dataclass(frozen=True, slots=True)
class Move:
    """A tenant's move, as a cell knows it. Of two with one tenant, that of the higher epoch holds."""

    tenant: str
    id: UUID
    epoch: int
    state: str
    cell: str
    saved: Mapping[str, Any]
    began_at: datetime
    frozen_at: datetime | None
    ended_at: datetime | None


def find(conn: Connection, tenant: str) -> Move | None:
    """The tenant's last move from or to this cell."""
    return _move(conn.execute(FIND, {"tenant": tenant}).mappings().one_or_none())


def hold(conn: Connection, tenant: str) -> Move | None:
    """The same, locked until the transaction ends."""
    return _move(conn.execute(HOLD, {"tenant": tenant}).mappings().one_or_none())


def all_moves(conn: Connection) -> list[Move]:
    """Every tenant's last move from or to this cell."""
    return [Move(**row) for row in conn.execute(ALL).mappings()]


def alone(conn: Connection, tenant: str) -> bool:
    """Whether no other mover is at work on the tenant; none will be before this transaction ends."""
    return bool(conn.execute(ALONE, {"tenant": tenant}).scalar_one())


def lock_kept(conn: Connection, tenant: str) -> None:
    """Let nothing more be kept for the tenant until the transaction ends."""
    conn.execute(LOCK_KEPT, {"tenant": tenant})


def put(conn: Connection, tenant: str, id_: UUID, epoch: int, state: str, cell: str, now: datetime) -> None:
    """Note that a move begins."""
    conn.execute(PUT, {"tenant": tenant, "id": id_, "epoch": epoch, "state": state, "cell": cell, "now": now})


def by_mover(conn: Connection, move: UUID) -> None:
    """Let this transaction append what the move brings. Only the database's owner may."""
    conn.execute(BY_MOVER, {"id": move})


def forget(conn: Connection, tenant: str) -> None:
    """Take back that a tenant moves."""
    conn.execute(FORGET, {"tenant": tenant})


def endpoints(conn: Connection, tenant: str) -> Sequence[int]:
    """The tenant's endpoints, the removed ones too."""
    return conn.execute(ENDPOINTS, {"tenant": tenant}).scalars().all()


def freeze(conn: Connection, tenant: str, now: datetime) -> None:
    """Let nothing more be appended, claimed or pulled for the tenant, from COMMIT on; keeps what that changes.

    Who has begun before may still append: wait until those in `appending` have ended. Frozen before: changes nothing.
    """
    held = list(endpoints(conn, tenant))
    saved = conn.execute(SAVED, {"tenant": tenant, "endpoints": held}).scalar_one()
    if conn.execute(FREEZE, {"tenant": tenant, "now": now, "saved": json.dumps(saved)}).rowcount:
        conn.execute(HOLD_ENDPOINTS, {"endpoints": held, "now": now})
        conn.execute(HOLD_MAILBOXES, {"tenant": tenant, "why": WHY, "now": now})


def thaw(conn: Connection, move: Move, now: datetime) -> None:
    """Undo the freeze."""
    if move.state == "moving":
        conn.execute(RELEASE_ENDPOINTS, {"endpoints": list(endpoints(conn, move.tenant))})
        conn.execute(RESTORE_HEALTH, {"rows": json.dumps(move.saved["health"])})
        conn.execute(RELEASE_MAILBOXES, {"rows": json.dumps(move.saved["mailboxes"]), "now": now})


def appending(conn: Connection) -> Collection[str]:
    """The transactions that have written entries, of any tenant."""
    return set(conn.execute(APPENDING).scalars())


def claiming(conn: Connection) -> Collection[str]:
    """The transactions that have read the health of endpoints, as who claims does."""
    return set(conn.execute(CLAIMING).scalars())


def leased(conn: Connection, tenant: str) -> int:
    """How many of the tenant's deliveries are being sent."""
    return int(conn.execute(LEASED, {"endpoints": list(endpoints(conn, tenant))}).scalar_one())


def pending(conn: Connection, tenant: str) -> bool:
    """Whether entries of the tenant have no positions in its log yet."""
    return bool(conn.execute(PENDING, {"tenant": tenant}).scalar_one())


def end(conn: Connection, move: Move, state: str, now: datetime) -> bool:
    """Bring the move into its last state; False if it is not any more as `move` says."""
    told = {"tenant": move.tenant, "id": move.id, "before": move.state, "state": state, "now": now}
    return bool(conn.execute(END, told).rowcount)


def give_up(conn: Connection, tenant: str, now: datetime) -> None:
    """Discard the deliveries and dead letters that the other cell has now, and remove the endpoints."""
    held = list(endpoints(conn, tenant))
    conn.execute(GIVE_UP_DELIVERIES, {"endpoints": held, "now": now, "moved_on": MOVED_ON})
    conn.execute(GIVE_UP_ENDPOINTS, {"endpoints": held})
    conn.execute(GIVE_UP_LETTERS, {"tenant": tenant, "now": now, "moved_on": MOVED_ON})


def _move(row: RowMapping | None) -> Move | None:
    return None if row is None else Move(**row)
