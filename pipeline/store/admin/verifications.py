"""Statements about verifications of the whole ledger: what the last ones found."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from schemas.fault import Verified

INSERT = text("""
    INSERT INTO verification (began_at, ended_at, entries, chains, faults)
    VALUES (:began, :ended, :entries, :chains, :faults)""")

LAST = text("""
    SELECT entries, faults, (SELECT max(ended_at) FROM verification WHERE faults = 0) AS intact_at
    FROM verification ORDER BY id DESC LIMIT 1""")


@dataclass(frozen=True, slots=True)
class LastVerification:
    """The last one: the entries it read, the faults it found; and when one last found none."""

    entries: int
    faults: int
    intact_at: datetime | None


def note(conn: Connection, verified: Verified, began: datetime, ended: datetime) -> None:
    """Record a verification of the whole ledger."""
    found = {"entries": verified.entries, "chains": verified.chains, "faults": verified.faults}
    conn.execute(INSERT, {**found, "began": began, "ended": ended})


def last(conn: Connection) -> LastVerification | None:
    """The last verification; None if there never was one."""
    row = conn.execute(LAST).one_or_none()
    return None if row is None else LastVerification(*row)
