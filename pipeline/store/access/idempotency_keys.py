"""Statements on what was answered under an Idempotency-Key, written in the transaction of the act."""

from dataclasses import dataclass

from sqlalchemy import Connection, text

# Held to the end of the transaction: a request that comes meanwhile under the same key does not wait, it is told.
LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:principal || ' ' || :key, 22))")

FIND = text("""
    SELECT asked, status, answer FROM idempotency_key
    WHERE principal = :principal AND key = :key AND at >= now() - make_interval(secs => :seconds)""")

# One that is older is forgotten: its key may be used again.
FORGET = text("DELETE FROM idempotency_key WHERE principal = :principal AND key = :key")
KEEP = text("""
    INSERT INTO idempotency_key (principal, key, asked, status, answer) VALUES (:principal, :key, :asked, :status, :answer)""")

DROP_OLD = text("""
    DELETE FROM idempotency_key WHERE (principal, key) IN (
      SELECT principal, key FROM idempotency_key WHERE at < now() - make_interval(secs => :seconds) ORDER BY at LIMIT 1000)""")


@dataclass(frozen=True, slots=True)
class Kept:
    """What was answered: to which request, by its hash, with which status. `answer` is encrypted."""

    asked: bytes
    status: int
    answer: bytes


def lock(conn: Connection, principal: str, key: str) -> bool:
    """Holds the key until the transaction ends; False if another transaction holds it."""
    return bool(conn.execute(LOCK, {"principal": principal, "key": key}).scalar_one())


def find(conn: Connection, principal: str, key: str, seconds: float) -> Kept | None:
    """What was answered under the key in the last `seconds`."""
    row = conn.execute(FIND, {"principal": principal, "key": key, "seconds": seconds}).one_or_none()
    return None if row is None else Kept(bytes(row.asked), row.status, bytes(row.answer))


def keep(conn: Connection, principal: str, key: str, kept: Kept) -> None:
    """Records an answer, in place of one that is forgotten."""
    conn.execute(FORGET, {"principal": principal, "key": key})
    asked = {"principal": principal, "key": key, "asked": kept.asked, "status": kept.status, "answer": kept.answer}
    conn.execute(KEEP, asked)


def drop_old(conn: Connection, seconds: float) -> None:
    """Deletes answers that are older than that."""
    conn.execute(DROP_OLD, {"seconds": seconds})
