"""Statements on the tokens of the API. A token is stored as its SHA-256, and found by its id."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text
from sqlalchemy import RowMapping as Row

from schemas.access import Role

ADD = text("""
    INSERT INTO access_token (id, hash, who, role, tenant, once, created_at, created_by, expires_at)
    VALUES (:id, :hash, :who, :role, :tenant, :once, :now, :by, :expires_at)""")

# The one query of a request.
FIND = text("SELECT hash, who, role, tenant, once, expires_at, last_used_at, revoked_at FROM access_token WHERE id = :id")

# Whoever comes second finds it used up. A token that is good for one login serves no request by itself.
USE_UP = text("UPDATE access_token SET last_used_at = :now WHERE id = :id AND once AND last_used_at IS NULL")

USED = text("UPDATE access_token SET last_used_at = :now WHERE id = :id AND (last_used_at IS NULL OR last_used_at < :before)")

REVOKE = text("""
    UPDATE access_token SET revoked_at = :now, revoked_by = :by WHERE id = :id AND revoked_at IS NULL
      AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
    RETURNING tenant""")

_SHOWN = """
    SELECT id, who, role, tenant, once, created_at, created_by, expires_at, last_used_at, revoked_at, revoked_by
    FROM access_token"""

SHOW = text(f"{_SHOWN} WHERE id = :id")

# Newest first. Those of all tenants are not shown to one of them.
LIST = text(f"{_SHOWN} WHERE CAST(:tenant AS text) IS NULL OR tenant = :tenant ORDER BY created_at DESC, id LIMIT :limit")

ANY = text("SELECT EXISTS (SELECT FROM access_token)")


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token as it is stored."""

    id: str
    hash: bytes
    who: str
    role: Role
    tenant: str | None
    once: bool
    expires_at: datetime


def add(conn: Connection, token: NewToken, by: str, now: datetime) -> None:
    """Stores a token. Raises a unique violation if its id is taken."""
    plain = {name: getattr(token, name) for name in ("id", "hash", "who", "role", "tenant", "once", "expires_at")}
    conn.execute(ADD, {**plain, "by": by, "now": now})


def find(conn: Connection, id_: str) -> Row | None:
    """The token with this id, with its hash."""
    return conn.execute(FIND, {"id": id_}).mappings().one_or_none()


def use_up(conn: Connection, id_: str, now: datetime) -> bool:
    """Uses up a token that is good for one login; False if that was done before."""
    return conn.execute(USE_UP, {"id": id_, "now": now}).rowcount == 1


def used(conn: Connection, id_: str, now: datetime, before: datetime) -> None:
    """Notes that the token is in use, unless that was noted since `before`."""
    conn.execute(USED, {"id": id_, "now": now, "before": before})


def revoke(conn: Connection, id_: str, tenant: str | None, by: str, now: datetime) -> Row | None:
    """Revokes a token, of this tenant if one is given; None if there is none, or if it was revoked before."""
    return conn.execute(REVOKE, {"id": id_, "tenant": tenant, "by": by, "now": now}).mappings().one_or_none()


def shown(conn: Connection, id_: str) -> Row:
    """A token that exists, without its hash."""
    return conn.execute(SHOW, {"id": id_}).mappings().one()


def listed(conn: Connection, tenant: str | None, limit: int) -> Sequence[Row]:
    """The newest tokens, of one tenant or of all; without their hashes."""
    return conn.execute(LIST, {"tenant": tenant, "limit": limit}).mappings().all()


def any_yet(conn: Connection) -> bool:
    """Whether a token was ever made."""
    return bool(conn.execute(ANY).scalar_one())
