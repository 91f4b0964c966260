"""Statements about what can be claimed of each tenant's ledger."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from pipeline.store.ledger.waiting import SPANS
from schemas.ledger.assurance import Claim, Word

# Of every tenant that has entries: its open log, the newest checkpoint, since when an entry has waited for its position, as the
# entry says, which is hashed, and since when the first leaf that is in no checkpoint has existed.
SEALS = text(f"""
    SELECT each.tenant, log.id, log.incarnation, newest.size, newest.note,
           (SELECT min(entry.at) FROM {SPANS} AS waiting
              JOIN entry ON entry.chain_id = waiting.chain_id AND entry.seq = waiting.first
            WHERE waiting.tenant = each.tenant),
           (SELECT entry.at FROM leaf JOIN entry ON entry.chain_id = leaf.chain_id AND entry.seq = leaf.seq
            WHERE leaf.log_id = log.id AND position = coalesce(newest.size, 0)),
           EXISTS (SELECT FROM verified_point WHERE verified_point.tenant = each.tenant AND broken)
    FROM (SELECT DISTINCT tenant FROM chain) AS each
      LEFT JOIN log ON log.tenant = each.tenant AND log.state = 'open'
      LEFT JOIN LATERAL (SELECT size, note FROM checkpoint WHERE log_id = log.id ORDER BY size DESC LIMIT 1) AS newest ON true
    ORDER BY each.tenant""")  # noqa: S608 - constants

# The latest receipts that a place is said to have given: whoever owns the database can write such rows himself.
RECEIPTS = text("""
    SELECT anchor.size, checkpoint.root, checkpoint.note, anchor.receipt
    FROM anchor JOIN checkpoint ON checkpoint.log_id = anchor.log_id AND checkpoint.size = anchor.size
    WHERE anchor.log_id = :log AND anchor.kind = :kind AND anchor.place = :place ORDER BY anchor.size DESC, anchor.id DESC
    LIMIT :most""")

# What a run found that verified the logs as well stands until such a run finds something else.
KEEP = text("""
    INSERT INTO claim (tenant, word, checked_at, missing) VALUES (:tenant, :word, :at, :missing)
    ON CONFLICT (tenant) DO UPDATE SET word = excluded.word, checked_at = excluded.checked_at, missing = excluded.missing
    WHERE NOT (:only_new AND claim.word = 'none' AND EXISTS
      (SELECT FROM verification WHERE part <> 'new' AND faults > 0 AND claim.checked_at BETWEEN began_at AND ended_at))""")

ROOT = text("SELECT root FROM checkpoint WHERE log_id = :log AND size = :size")

LEAF_AT = text("""
    SELECT entry.at FROM leaf JOIN entry ON entry.chain_id = leaf.chain_id AND entry.seq = leaf.seq
    WHERE leaf.log_id = :log AND position = :position""")

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
    unsealed_at: int | None  # microseconds, of the first leaf that is in no checkpoint
    broken: bool


@dataclass(frozen=True, slots=True)
class Receipt:
    """A checkpoint in the database, and what a place is said to have given for it."""

    size: int
    root: bytes
    note: str
    receipt: bytes


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


def receipts(conn: Connection, log: int, kind: str, place: str, most: int) -> Sequence[Receipt]:
    """The latest receipts of a place for checkpoints of a log. Nothing in them was checked."""
    told = {"log": log, "kind": kind, "place": place, "most": most}
    return [Receipt(row[0], bytes(row[1]), row[2], bytes(row[3])) for row in conn.execute(RECEIPTS, told)]


def sealed_root(conn: Connection, log: int, size: int) -> bytes | None:
    """The root in the log's checkpoint of this size; None if there is none."""
    root = conn.execute(ROOT, {"log": log, "size": size}).scalar()
    return None if root is None else bytes(root)


def leaf_at(conn: Connection, log: int, position: int) -> int | None:
    """When the entry at this position was recorded, in microseconds; None if there is none."""
    at: int | None = conn.execute(LEAF_AT, {"log": log, "position": position}).scalar()
    return at


def keep(conn: Connection, made: Iterable[tuple[str, Claim]], now: datetime, *, only_new: bool) -> None:
    """Record what can be claimed of tenants now, before the verification that found it is noted.

    `only_new`: it did not verify the logs. Then a fault that a run found which did is not taken back.
    """
    for tenant, each in made:
        told = {"tenant": tenant, "word": each.word, "at": now, "missing": each.missing, "only_new": only_new}
        conn.execute(KEEP, told)


def kept(conn: Connection) -> Sequence[KeptClaim]:
    """What was last claimed of every tenant."""
    return [KeptClaim(*row) for row in conn.execute(ALL)]
