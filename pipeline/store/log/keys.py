"""Statements on the keys that sign the tenants' logs. The private ones are encrypted by the caller."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

KEYS = text("SELECT id, public, state, created_at FROM log_key WHERE log_id = :log ORDER BY id")

SIGNING = text(
    "SELECT public, private FROM log_key WHERE log_id = :log AND state = 'active' AND private IS NOT NULL ORDER BY id"
)

ADD = text("INSERT INTO log_key (log_id, public, private) VALUES (:log, :public, :private)")

RETIRE = text("UPDATE log_key SET state = 'retired' WHERE log_id = :log AND id = :id AND state = 'active'")


@dataclass(frozen=True, slots=True)
class LogKey:
    """A key of a log, without its private part."""

    id: int
    public: bytes
    state: str
    created_at: datetime


def keys(conn: Connection, log_id: int) -> Sequence[LogKey]:
    """All keys of the log, the oldest first."""
    return [LogKey(id_, bytes(public), state, at) for id_, public, state, at in conn.execute(KEYS, {"log": log_id})]


def signing(conn: Connection, log_id: int) -> Sequence[tuple[bytes, bytes]]:
    """The public and encrypted private keys that sign, the oldest first."""
    return [(bytes(public), bytes(private)) for public, private in conn.execute(SIGNING, {"log": log_id})]


def add(conn: Connection, log_id: int, public: bytes, private: bytes) -> None:
    """Add a key that signs from the next turn of the sealer on. The database lets the sealer add only a log's first."""
    conn.execute(ADD, {"log": log_id, "public": public, "private": private})


def retire(conn: Connection, log_id: int, key_id: int) -> bool:
    """Let a key sign no more; give whether it did. Checkpoints that it signed stay valid."""
    return bool(conn.execute(RETIRE, {"log": log_id, "id": key_id}).rowcount)
