"""Statements about verifications of the ledger: what the last ones found."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, text

from pipeline.store.ledger import points
from schemas.ledger.fault import Verified

Part = Literal["whole", "new", "slice"]

INSERT = text("""
    INSERT INTO verification (began_at, ended_at, entries, chains, faults, part, read, slice, parts)
    VALUES (:began, :ended, :entries, :chains, :faults, :part, :read, :slice, :parts)""")

# A fault that one part found stands until that part, or the whole, is verified again. Intact is what a run found that read
# everything, or everything since it was verified, while no other part had found a fault.
LAST = text("""
    WITH since AS (SELECT coalesce(max(id), 0) AS id FROM verification WHERE part = 'whole'),
    latest AS (
      SELECT DISTINCT ON (part, slice) part, slice, entries, faults, ended_at, verification.id FROM verification, since
      WHERE verification.id >= since.id ORDER BY part, slice, verification.id DESC)
    SELECT (SELECT entries FROM latest ORDER BY id DESC LIMIT 1) AS entries, sum(faults) AS faults,
           CASE WHEN sum(faults) = 0 THEN max(ended_at)
                ELSE (SELECT max(ended_at) FROM verification
                      WHERE faults = 0 AND id < (SELECT min(id) FROM latest WHERE faults > 0))
           END AS intact_at
    FROM latest HAVING count(*) > 0""")

LAST_SLICE = text("SELECT slice, parts, ended_at FROM verification WHERE part = 'slice' ORDER BY id DESC LIMIT 1")


@dataclass(frozen=True, slots=True)
class LastVerification:
    """The last ones: the entries that were verified, the faults that stand; and when none was last found."""

    entries: int
    faults: int
    intact_at: datetime | None


@dataclass(frozen=True, slots=True)
class LastSlice:
    """The slice of the chains that was last verified, of how many, and when."""

    number: int
    parts: int
    ended_at: datetime


def note(
    conn: Connection,
    verified: Verified,
    began: datetime,
    ended: datetime,
    part: Part = "whole",
    slice_: tuple[int, int] | None = None,
) -> None:
    """Record a verification. Of a part, the entries up to the verified points count as verified."""
    chains, entries = (verified.chains, verified.entries) if part == "whole" else points.covered(conn)
    number, parts = slice_ or (None, None)
    found = {"entries": entries, "chains": chains, "faults": verified.faults, "read": verified.entries}
    conn.execute(INSERT, {**found, "began": began, "ended": ended, "part": part, "slice": number, "parts": parts})


def last(conn: Connection) -> LastVerification | None:
    """What the last verifications found; None if there never was one."""
    row = conn.execute(LAST).one_or_none()
    return None if row is None else LastVerification(int(row.entries), int(row.faults), row.intact_at)


def last_slice(conn: Connection) -> LastSlice | None:
    """The slice that was last verified; None if none was."""
    row = conn.execute(LAST_SLICE).one_or_none()
    return None if row is None else LastSlice(*row)
