"""Sessions of the console: begun by a login, found by their cookie, listed, and ended at once.

The cookie holds 256 random bits, and the database their SHA-256. What the forms of a session must send back is derived from the
cookie's value, so that it need not be stored.
"""

import base64
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

from sqlalchemy import Connection, Engine
from sqlalchemy import RowMapping as Row

from ops.admin.access import tokens
from ops.admin.read_session import snapshot
from ops.admin.views import View, rfc3339
from ops.runtime.db import alone, transaction
from pipeline.store.access import sessions as store
from pipeline.store.access import tokens as token_store
from pipeline.store.access.sessions import NewSession
from pipeline.store.admin import audit
from schemas.access import Actor, By, Principal, Role

IDLE: Final = timedelta(minutes=30)
LONGEST: Final = timedelta(hours=12)
FRESH: Final = timedelta(minutes=5)  # after a login, for which secrets and contents may be revealed
NOTED_EVERY: Final = timedelta(minutes=1)
MOST_OF_ONE: Final = 20  # open at once; a login ends the oldest beyond
MOST_LISTED: Final = 500
KEPT: Final = timedelta(days=30)  # after their end; what was done in them is in the audit
_VALUE_LENGTH: Final = 43  # characters of 256 bits in base64
_AGENT_LENGTH: Final = 200


@dataclass(frozen=True, slots=True)
class Visitor:
    """The browser that logs in: its address, what it calls itself, the request's id, and the cookie that it had, if any."""

    address: str
    agent: str
    request_id: str = ""
    cookie: str | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whom an OpenID provider vouches for; `fresh_at`: when they logged in there, if it says so.

    `policy` stands for the settings that gave the grants: under others, the session is over. After `lasts` it is over, too.
    """

    who: str
    issuer: str
    subject: str
    policy: str
    grants: Mapping[str, Role]
    fresh_at: datetime | None
    lasts: timedelta = LONGEST


def begin_by_token(engine: Engine, text: str, visitor: Visitor) -> str | None:
    """Begins a session of whom the token is for; returns the cookie's value, or None if the token is not valid.

    It ends with the token. A token that is good for one login is used up. The session that the browser had before is ended.
    """
    now = datetime.now(UTC)
    found = tokens.valid(engine, text)
    if found is None:
        return None
    id_, row = found
    value = secrets.token_urlsafe(32)
    with transaction(engine) as conn:
        if row["once"]:
            if not token_store.use_up(conn, id_, now):
                return None
        else:
            token_store.used(conn, id_, now, now)
        _begin(conn, _of_token(value, id_, row, visitor, now), visitor, now)
    return value


def begin_by_openid(engine: Engine, person: Person, visitor: Visitor) -> str:
    """Begins a session of somebody whom the OpenID provider vouches for; returns the cookie's value."""
    now = datetime.now(UTC)
    value = secrets.token_urlsafe(32)
    with transaction(engine) as conn:
        _begin(conn, _of_person(value, person, visitor, now), visitor, now)
    return value


def turn_away(engine: Engine, who: str, issuer: str, subject: str, visitor: Visitor) -> None:
    """Records that somebody whom the OpenID provider vouches for may do nothing here. The caller bounds how often."""
    by = Actor(who, "session", "", "", visitor.address, visitor.request_id)
    about = {"issuer": issuer, "subject": subject, "because": "in no group that may do anything"}
    with transaction(engine) as conn:
        audit.record(conn, by, "login", about, 0, datetime.now(UTC), "done", "refused")


def principal_of(engine: Engine, value: str, policy: str | None) -> Principal | None:
    """Whose session a cookie's value names; None if it is unknown, ended, idle for too long, or too old.

    `policy` stands for the settings that give grants to those who log in by OpenID.
    """
    key, now = _key(value), datetime.now(UTC)
    with alone(engine) as conn:
        row = store.find(conn, key, now)
    if row is None or row["over"] or min(row["idle_until"], row["ends_at"]) <= now:
        return None
    if row["policy"] is not None and row["policy"] != policy:
        return None
    if row["seen_at"] < now - NOTED_EVERY:
        with alone(engine) as conn:
            store.seen(conn, key, now, now - NOTED_EVERY, now + IDLE)
    fresh = row["fresh_at"] is not None and row["fresh_at"] > now - FRESH
    return Principal(row["who"], row["grants"], "session", row["id"], _csrf(value), fresh)


def log_out(engine: Engine, value: str, by: Actor) -> None:
    """Ends the session of a cookie."""
    now = datetime.now(UTC)
    with transaction(engine) as conn:
        ended = store.end_by_key(conn, _key(value), now)
        if ended is not None:
            audit.record(conn, by, "logout", {"session": ended["id"]}, 1, now, "done")


def listed(engine: Engine) -> list[View]:
    """The newest sessions that are in use."""
    with snapshot(engine) as conn:
        return [_view(row) for row in store.listed(conn, datetime.now(UTC), MOST_LISTED)]


def own(engine: Engine, id_: str) -> list[View]:
    """The sessions in use of the person whose session this is."""
    with snapshot(engine) as conn:
        return [_view(row) for row in store.of_the_same(conn, id_, datetime.now(UTC), MOST_LISTED)]


def end(engine: Engine, id_: str, by: By) -> bool:
    """Ends a session at once; False if there is none in use with this id."""
    now = datetime.now(UTC)
    with transaction(engine) as conn:
        whose = store.end_by_id(conn, id_, now)
        if whose is not None:
            audit.record(conn, by, "session end", {"session": id_, "who": whose}, 1, now, "done")
    return whose is not None


def end_own(engine: Engine, id_: str, by: By) -> int:
    """Ends all sessions of the person whose session this is, and itself; returns how many."""
    now = datetime.now(UTC)
    with transaction(engine) as conn:
        ids = [row["id"] for row in store.of_the_same(conn, id_, now, MOST_LISTED)]
        count = sum(store.end_by_id(conn, each, now) is not None for each in ids)
        audit.record(conn, by, "session end", {"session": id_, "everywhere": True}, count, now, "done")
    return count


def end_all(engine: Engine, who: str, by: By) -> int:
    """Ends all sessions of this name at once; returns how many."""
    now = datetime.now(UTC)
    with transaction(engine) as conn:
        count = store.end_all(conn, who, now)
        audit.record(conn, by, "session end", {"who": who, "everywhere": True}, count, now, "done")
    return count


def sweep(engine: Engine, most: int) -> int:
    """Deletes sessions that ended long ago; returns how many."""
    with transaction(engine) as conn:
        return store.sweep(conn, datetime.now(UTC) - KEPT, most)


def _begin(conn: Connection, session: NewSession, visitor: Visitor, now: datetime) -> None:
    """A login makes a new session, so that whoever knew the cookie from before gains nothing."""
    if visitor.cookie is not None:
        store.end_by_key(conn, _key(visitor.cookie), now)
    store.add(conn, session, MOST_OF_ONE, now)
    tenants = [tenant for tenant in session.grants if tenant != "*"]
    about = {
        "session": session.id,
        **({"token": session.token_id} if session.token_id else {"issuer": session.issuer, "subject": session.subject}),
        **({"tenant": tenants[0]} if len(session.grants) == 1 and tenants else {}),
    }
    by = Actor(session.who, "session", session.id, "", visitor.address, visitor.request_id)
    audit.record(conn, by, "login", about, 1, now, "done")


def _of_token(value: str, id_: str, row: Row, visitor: Visitor, now: datetime) -> NewSession:
    return NewSession(
        key=_key(value),
        id=secrets.token_hex(8),
        who=row["who"],
        issuer=None,
        subject=None,
        policy=None,
        token_id=id_,
        grants=tokens.grants_of(row),
        fresh_at=now,
        idle_until=now + IDLE,
        ends_at=min(now + LONGEST, row["expires_at"]),
        address=visitor.address,
        agent=visitor.agent[:_AGENT_LENGTH],
    )


def _of_person(value: str, person: Person, visitor: Visitor, now: datetime) -> NewSession:
    return NewSession(
        key=_key(value),
        id=secrets.token_hex(8),
        who=person.who,
        issuer=person.issuer,
        subject=person.subject,
        policy=person.policy,
        token_id=None,
        grants=person.grants,
        fresh_at=person.fresh_at,
        idle_until=now + IDLE,
        ends_at=now + min(LONGEST, person.lasts),
        address=visitor.address,
        agent=visitor.agent[:_AGENT_LENGTH],
    )


def _key(value: str) -> bytes:
    return sha256(value[: 2 * _VALUE_LENGTH].encode(errors="replace")).digest()


def _csrf(value: str) -> str:
    """What the session's forms must send back."""
    return base64.urlsafe_b64encode(hmac.digest(value.encode(errors="replace"), b"waxseal csrf", "sha256")).decode().rstrip("=")


def _view(row: Row) -> View:
    plain = ("id", "who", "issuer", "subject", "grants", "address", "agent")
    times = ("created_at", "seen_at", "fresh_at", "idle_until", "ends_at")
    view = {**{name: row[name] for name in plain}, **{name: rfc3339(row[name]) for name in times}}
    return {**view, "token": row["token_id"]}
