"""Statements on the sessions of the console. A session is found by the SHA-256 of its cookie's value; `id` is only its name."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text
from sqlalchemy import RowMapping as Row

ADD = text("""
    INSERT INTO console_session (key, id, who, issuer, subject, policy, token_id, grants, created_at, seen_at, fresh_at,
                                 idle_until, ends_at, address, agent)
    VALUES (:key, :id, :who, :issuer, :subject, :policy, :token_id, CAST(:grants AS jsonb), :now, :now, :fresh_at,
            :idle_until, :ends_at, :address, :agent)""")

# The one query of a request. A session that a token began is as good as that token.
FIND = text("""
    SELECT session.id, session.who, session.policy, session.grants, seen_at, fresh_at, idle_until, ends_at,
           ended_at IS NOT NULL OR token.revoked_at IS NOT NULL OR token.expires_at <= :now AS over
    FROM console_session AS session LEFT JOIN access_token AS token ON token.id = token_id
    WHERE key = :key""")

SEEN = text("UPDATE console_session SET seen_at = :now, idle_until = :idle_until WHERE key = :key AND seen_at < :before")

# The oldest ones of a person, beyond the newest :kept. By OpenID Connect a person is a pair of issuer and subject, by tokens
# a name.
END_OLDEST = text("""
    UPDATE console_session SET ended_at = :now WHERE key IN (
      SELECT key FROM console_session
      WHERE who = :who AND issuer IS NOT DISTINCT FROM CAST(:issuer AS text)
        AND subject IS NOT DISTINCT FROM CAST(:subject AS text) AND ended_at IS NULL AND ends_at > :now
      ORDER BY created_at DESC OFFSET :kept)""")

END_BY_KEY = text("UPDATE console_session SET ended_at = :now WHERE key = :key AND ended_at IS NULL RETURNING id, who")
END_BY_ID = text(
    "UPDATE console_session SET ended_at = :now WHERE id = :id AND ended_at IS NULL AND ends_at > :now RETURNING who"
)
END_ALL = text("UPDATE console_session SET ended_at = :now WHERE who = :who AND ended_at IS NULL AND ends_at > :now")

_SHOWN = """
    SELECT id, who, issuer, subject, token_id, grants, created_at, seen_at, fresh_at, idle_until, ends_at, address, agent
    FROM console_session WHERE ended_at IS NULL AND ends_at > :now AND idle_until > :now"""

# Newest first.
LIST = text(f"{_SHOWN} ORDER BY created_at DESC LIMIT :limit")

_THE_SAME = """(who, coalesce(issuer, ''), coalesce(subject, '')) =
    (SELECT who, coalesce(issuer, ''), coalesce(subject, '') FROM console_session WHERE id = :id)"""
LIST_OF_THE_SAME = text(f"{_SHOWN} AND {_THE_SAME} ORDER BY created_at DESC LIMIT :limit")

# Those that ended long ago; what they did is in the audit.
SWEEP = text("""
    DELETE FROM console_session WHERE key IN
      (SELECT key FROM console_session WHERE ends_at < :before ORDER BY ends_at LIMIT :limit)""")


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session as it is stored; it is by a token, or by an issuer and a subject under a policy."""

    key: bytes
    id: str
    who: str
    issuer: str | None
    subject: str | None
    policy: str | None
    token_id: str | None
    grants: Mapping[str, str]
    fresh_at: datetime | None
    idle_until: datetime
    ends_at: datetime
    address: str
    agent: str


def add(conn: Connection, session: NewSession, kept: int, now: datetime) -> None:
    """Stores a session, and ends the oldest of the same person beyond the newest `kept`."""
    plain = {name: getattr(session, name) for name in NewSession.__slots__}
    conn.execute(ADD, {**plain, "grants": json.dumps(session.grants), "now": now})
    same = {"who": session.who, "issuer": session.issuer, "subject": session.subject}
    conn.execute(END_OLDEST, {**same, "kept": kept, "now": now})


def find(conn: Connection, key: bytes, now: datetime) -> Row | None:
    """The session of a cookie; `over` if it was ended, or its token is not valid any more."""
    return conn.execute(FIND, {"key": key, "now": now}).mappings().one_or_none()


def seen(conn: Connection, key: bytes, now: datetime, before: datetime, idle_until: datetime) -> None:
    """Notes that the session is in use, unless that was noted since `before`."""
    conn.execute(SEEN, {"key": key, "now": now, "before": before, "idle_until": idle_until})


def end_by_key(conn: Connection, key: bytes, now: datetime) -> Row | None:
    """Ends the session of a cookie; its id and whose it was, or None if there is none that has not ended."""
    return conn.execute(END_BY_KEY, {"key": key, "now": now}).mappings().one_or_none()


def end_by_id(conn: Connection, id_: str, now: datetime) -> str | None:
    """Ends a session; whose it was, or None if there is none that has not ended."""
    who: str | None = conn.execute(END_BY_ID, {"id": id_, "now": now}).scalar_one_or_none()
    return who


def end_all(conn: Connection, who: str, now: datetime) -> int:
    """Ends all sessions of this name; returns how many."""
    return conn.execute(END_ALL, {"who": who, "now": now}).rowcount


def listed(conn: Connection, now: datetime, limit: int) -> Sequence[Row]:
    """The newest sessions that are in use."""
    return conn.execute(LIST, {"now": now, "limit": limit}).mappings().all()


def of_the_same(conn: Connection, id_: str, now: datetime, limit: int) -> Sequence[Row]:
    """The newest sessions in use of the person whose session this is, with itself."""
    return conn.execute(LIST_OF_THE_SAME, {"id": id_, "now": now, "limit": limit}).mappings().all()


def sweep(conn: Connection, before: datetime, limit: int) -> int:
    """Deletes sessions whose end was before that; returns how many."""
    return conn.execute(SWEEP, {"before": before, "limit": limit}).rowcount
