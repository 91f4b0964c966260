"""Statements that seal the tenants' logs: their sizes, their leaves, their checkpoints, and what the sealer refuses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, RowMapping, text

from pipeline.store.ledger import entries
from pipeline.store.storable_text import storable

AT_ONCE: Final = 4096  # leaves in one statement
TOLD: Final = timedelta(hours=1)  # between two operator events of one tenant

# A session that leads and stands still is ended; one that does not lead may rest for as long as it likes.
LEAD = text("""
    SELECT locked, set_config('idle_session_timeout', CASE WHEN locked THEN :frozen ELSE '0' END, false)
    FROM (SELECT pg_try_advisory_lock(24852988478448749) AS locked OFFSET 0) AS tried""")

OPEN_LOGS = text("""
    SELECT log.id, tenant, incarnation, size, frontier, coalesce(signing.keys, '{}') AS keys,
      coalesce((SELECT size FROM checkpoint WHERE log_id = log.id ORDER BY size DESC LIMIT 1), 0) AS sealed
    FROM log LEFT JOIN (
      SELECT log_id, array_agg(id ORDER BY id) AS keys FROM log_key WHERE state = 'active' GROUP BY log_id
    ) AS signing ON signing.log_id = log.id
    WHERE state = 'open' AND size > 0 AND NOT EXISTS (
      SELECT FROM tenant_move AS move WHERE move.tenant = log.tenant AND move.state NOT IN ('copying', 'arrived'))
    ORDER BY tenant""")

OPEN_LOG = text("SELECT id, tenant, incarnation, size, frontier FROM log WHERE state = 'open' AND tenant = :tenant")

# The envelopes, by two unique indexes. No hash is taken from the rows: what is published is hashed from these bytes.
LEAVES = text("""
    SELECT position, entry_envelope(entry.chain_id, entry.seq, prev_hash, tenant, at, kind, pc)
    FROM leaf JOIN entry ON entry.chain_id = leaf.chain_id AND entry.seq = leaf.seq
    WHERE log_id = :log AND position >= :first AND position < :last ORDER BY position""")

KEEP = text("""
    INSERT INTO checkpoint (log_id, size, root, note, signed_at) VALUES (:log, :size, :root, :note, :now)
    ON CONFLICT DO NOTHING""")

KEPT = text("SELECT root, note FROM checkpoint WHERE log_id = :log AND size = :size")

REFUSE = text("""
    INSERT INTO log_refusal (log_id, since, kind, detail) VALUES (:log, :now, :kind, :detail)
    ON CONFLICT (log_id) DO UPDATE SET kind = :kind, detail = :detail""")

TELL = text("""
    INSERT INTO operator_event (at, kind, tenant, detail)
    SELECT :now, 'log_refused', :tenant, :detail WHERE CAST(:since AS timestamptz) IS NULL OR NOT EXISTS (
      SELECT FROM operator_event WHERE kind = 'log_refused' AND tenant = :tenant AND at > :since)""")

RESUME = text("DELETE FROM log_refusal WHERE log_id = :log")

REFUSALS = text("""
    SELECT tenant, incarnation, since, log_refusal.kind, detail FROM log_refusal JOIN log ON log.id = log_id
    WHERE state = 'open' ORDER BY tenant""")

SUMMARY = text("""
    SELECT log.id, tenant, incarnation, state, log.size, sealed.size AS sealed, sealed.signed_at,
      (SELECT coalesce(sum(entries), 0) FROM log_pending WHERE log_pending.tenant = log.tenant) AS pending,
      log_refusal.kind AS refused, log_refusal.detail AS refusal, log_refusal.since AS refused_since
    FROM log
    LEFT JOIN LATERAL (SELECT size, signed_at FROM checkpoint WHERE log_id = log.id ORDER BY size DESC LIMIT 1) sealed ON true
    LEFT JOIN log_refusal ON log_refusal.log_id = log.id
    WHERE (CAST(:tenant AS text) IS NULL OR tenant = :tenant) ORDER BY tenant, incarnation""")


@dataclass(frozen=True, slots=True)
class OpenLog:
    """A log as the sequencer left it: `frontier` is the packed compact range of its `size` leaves.

    `sealed` is the size of its newest checkpoint, `keys` are the ids of those that sign, as far as they were asked for.
    """

    id: int
    tenant: str
    incarnation: int
    size: int
    frontier: bytes
    sealed: int = 0
    keys: tuple[int, ...] = ()

    @property
    def unsealed(self) -> int:
        """How many leaves are in no checkpoint."""
        return self.size - self.sealed


def lead(conn: Connection, frozen: float) -> bool:
    """Whether this session is the one that seals. It becomes so if there is none, until it ends.

    From then on Postgres ends it when it is not used for `frozen` seconds.
    """
    return bool(conn.execute(LEAD, {"frozen": f"{int(frozen * 1000)}ms"}).scalar_one())


def open_logs(conn: Connection) -> list[OpenLog]:
    """The logs that have leaves and may grow; not of tenants that are on their way between cells, or have gone."""
    return [replace(_log(row), sealed=row["sealed"], keys=tuple(row["keys"])) for row in conn.execute(OPEN_LOGS).mappings()]


def open_log(conn: Connection, tenant: str) -> OpenLog | None:
    """The tenant's log that may grow, even an empty one."""
    row = conn.execute(OPEN_LOG, {"tenant": tenant}).mappings().one_or_none()
    return None if row is None else _log(row)


def leaves(conn: Connection, log_id: int, first: int, last: int) -> list[bytes]:
    """The envelopes at the positions from `first` on and before `last`, up to the first that is missing."""
    rows = conn.execute(LEAVES, {"log": log_id, "first": first, "last": last}).all()
    return [bytes(envelope) for at, (position, envelope) in enumerate(rows, first) if at == position]


def pages(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Ranges of at most `AT_ONCE` positions."""
    return ((at, min(at + AT_ONCE, last)) for at in range(first, last, AT_ONCE))


def keep(conn: Connection, log_id: int, size: int, root: bytes, note: str, now: datetime) -> tuple[bytes, str]:
    """Keep a checkpoint for ever; give the root and the note that are kept for this size, which may be older ones."""
    kept = conn.execute(KEEP, {"log": log_id, "size": size, "root": root, "note": note, "now": now})
    if not kept.rowcount:
        entries.commit_durably(conn)  # it will be published, and may not be on the standbys yet
    kept_root, kept_note = conn.execute(KEPT, {"log": log_id, "size": size}).one()
    return bytes(kept_root), kept_note


def kept(conn: Connection, log_id: int, size: int) -> str | None:
    """The note that is kept for this size."""
    row = conn.execute(KEPT, {"log": log_id, "size": size}).one_or_none()
    return None if row is None else str(row[1])


def refuse(conn: Connection, log: OpenLog, kind: str, detail: str, now: datetime, *, anew: bool = False) -> None:
    """Note that the log is not sealed, and why; an operator event tells of it, once an hour, or `anew` whatever was told."""
    conn.execute(REFUSE, {"log": log.id, "now": now, "kind": kind, "detail": storable(detail)})
    since = None if anew else now - TOLD
    conn.execute(TELL, {"tenant": log.tenant, "detail": storable(detail), "now": now, "since": since})


def tell(conn: Connection, tenant: str, detail: str, now: datetime) -> None:
    """Tell of something that is wrong with the tenant's log, by an operator event."""
    conn.execute(TELL, {"tenant": tenant, "detail": storable(detail), "now": now, "since": None})


def resume(conn: Connection, log_id: int) -> bool:
    """Note that the log is sealed again; give whether it was refused."""
    return bool(conn.execute(RESUME, {"log": log_id}).rowcount)


def refusals(conn: Connection) -> Sequence[RowMapping]:
    """The logs that the sealer refuses to sign: tenant, incarnation, since, kind and detail."""
    return conn.execute(REFUSALS).mappings().all()


def summary(conn: Connection, tenant: str | None) -> Sequence[RowMapping]:
    """Every log, or the tenant's: its size, what is sealed, what waits for a position, and why it is refused."""
    return conn.execute(SUMMARY, {"tenant": tenant}).mappings().all()


def _log(row: RowMapping) -> OpenLog:
    return OpenLog(row["id"], row["tenant"], row["incarnation"], row["size"], bytes(row["frontier"]))
