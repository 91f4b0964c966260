"""Statements about what can be claimed of each tenant's ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from schemas.ledger.assurance import Claim, Word

# Of every tenant that has entries: its open log, the newest checkpoint, and since when an entry has waited for its position.
SEALS = text("""
    SELECT each.tenant, log.id, log.incarnation, newest.size, newest.note,
           (SELECT min(waiting.at) FROM log_pending AS waiting WHERE waiting.tenant = each.tenant),
           EXISTS (SELECT FROM verified_point WHERE verified_point.tenant = each.tenant AND broken)
    FROM (SELECT DISTINCT tenant FROM chain) AS each
      LEFT JOIN log ON log.tenant = each.tenant AND log.state = 'open'
      LEFT JOIN LATERAL (SELECT size, note FROM checkpoint WHERE log_id = log.id ORDER BY size DESC LIMIT 1) AS newest ON true
    ORDER BY each.tenant""")

# Whoever anchors writes a row once he has checked the receipt.
ANCHORED = text("""
    SELECT CASE WHEN kind = 'witness' THEN 'witnessed' ELSE 'anchored' END, max(at) FROM anchor
    WHERE log_id = :log AND kind IN ('folder', 's3', 'rfc3161', 'witness') GROUP BY 1""")

KEEP = text("""
    INSERT INTO claim (tenant, word, checked_at, missing) VALUES (:tenant, :word, :at, :missing)
    ON CONFLICT (tenant) DO UPDATE SET word = excluded.word, checked_at = excluded.checked_at, missing = excluded.missing""")

ALL = text("SELECT tenant, word, checked_at, missing FROM claim ORDER BY tenant")


@dataclass(frozen=True, slots=True)
class Seal:
    """How a tenant's log stands. `log` is None when there is none, `size` when it has no checkpoint."""

    tenant: str
    log: int | None
    incarnation: int | None
    size: int | None
    note: str | None
    waiting_at: int | None  # microseconds, of the oldest entry without a position
    broken: bool


@dataclass(frozen=True, slots=True)
class KeptClaim:
    """What was claimed of a tenant, and when it was checked."""

    tenant: str
    word: Word
    checked_at: datetime
    missing: str


def seals(conn: Connection) -> Sequence[Seal]:
    """How the log of every tenant with entries stands."""
    return [Seal(*row) for row in conn.execute(SEALS)]


def anchored(conn: Connection, log: int) -> Mapping[str, datetime]:
    """When the log was last `anchored` and `witnessed`."""
    return {row[0]: row[1] for row in conn.execute(ANCHORED, {"log": log})}


def keep(conn: Connection, tenant: str, made: Claim, now: datetime) -> None:
    """Record what can be claimed of a tenant now."""
    conn.execute(KEEP, {"tenant": tenant, "word": made.word, "at": now, "missing": made.missing})


def kept(conn: Connection) -> Sequence[KeptClaim]:
    """What was last claimed of every tenant."""
    return [KeptClaim(*row) for row in conn.execute(ALL)]
