"""Statements on logins that are under way at an OpenID provider. A row is deleted when it is used, so that it serves once."""

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, text

SWEEP = text("DELETE FROM login_attempt WHERE ends_at <= :now")

# No more than :most, so that nobody fills the table.
ADD = text("""
    INSERT INTO login_attempt (key, browser, nonce, verifier, next, fresh, begun_at, ends_at)
    SELECT :key, :browser, :nonce, :verifier, :next, :fresh, :now, :ends_at
    WHERE (SELECT count(*) FROM login_attempt) < :most""")

TAKE = text("""
    DELETE FROM login_attempt WHERE key = :key AND browser = :browser
    RETURNING nonce, verifier, next, fresh, begun_at, ends_at""")


@dataclass(frozen=True, slots=True)
class Attempt:
    """A login that is under way."""

    nonce: str
    verifier: str = field(repr=False)
    next: str
    fresh: bool
    begun_at: datetime
    ends_at: datetime


def add(conn: Connection, key: bytes, browser: bytes, attempt: Attempt, most: int) -> bool:
    """Stores an attempt, and deletes those that have ended; False if there are too many."""
    conn.execute(SWEEP, {"now": attempt.begun_at})
    plain = {name: getattr(attempt, name) for name in ("nonce", "verifier", "next", "fresh", "ends_at")}
    asked = {**plain, "key": key, "browser": browser, "now": attempt.begun_at, "most": most}
    return conn.execute(ADD, asked).rowcount == 1


def take(conn: Connection, key: bytes, browser: bytes) -> Attempt | None:
    """Takes out the attempt with this key that this browser began."""
    row = conn.execute(TAKE, {"key": key, "browser": browser}).mappings().one_or_none()
    return None if row is None else Attempt(**row)
