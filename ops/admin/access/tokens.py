"""Tokens of the API: made, listed, revoked. A token is shown once, when it is made; only its hash is stored."""

import hmac
import secrets
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection, Engine
from sqlalchemy import RowMapping as Row

from ops.admin.access.token_text import SECRET_BYTES, make_token, read_token
from ops.admin.read_session import known_tenant, snapshot
from ops.admin.views import View, rfc3339
from ops.errors import OpsError
from ops.runtime.db import alone, transaction
from pipeline.store.access import tokens as store
from pipeline.store.access.tokens import NewToken
from pipeline.store.admin import audit
from schemas.access import EVERYWHERE, By, Principal, Role

SHORTEST: Final = timedelta(minutes=1)
LONGEST: Final = timedelta(days=366)
LONGEST_ONCE: Final = timedelta(days=1)  # a link is used soon, or lost
NOTED_EVERY: Final = timedelta(minutes=1)
MOST_LISTED: Final = 1000
LONGEST_NAME: Final = 200  # characters
_NOBODY: Final = bytes(32)  # compared with when there is no such token, so that it takes as long


def new(
    engine: Engine, *, who: str, role: Role, tenant: str | None, lasts: timedelta, by: By, once: bool = False
) -> tuple[View, str]:
    """Makes a token, and records that; returns it as it is listed, and the token itself, which cannot be shown again.

    Without a tenant it is for all of them. `once`: it is good for one login, and the session ends when it expires. Raises
    `OpsError` for an empty name, for a tenant that does not exist, and for a length of time that is not allowed.
    """
    with transaction(engine) as conn:
        return make(conn, who=who, role=role, tenant=tenant, lasts=lasts, by=by, once=once)


def make(
    conn: Connection, *, who: str, role: Role, tenant: str | None, lasts: timedelta, by: By, once: bool = False
) -> tuple[View, str]:
    """As `new`, in the caller's transaction."""
    who, longest = who.strip(), LONGEST_ONCE if once else LONGEST
    if not who or len(who) > LONGEST_NAME or not who.isprintable():
        raise OpsError(f"a token needs the name of who uses it, of 1 to {LONGEST_NAME} characters: the audit names it")
    if not SHORTEST <= lasts <= longest:
        raise OpsError(f"a token must expire: in 1 minute at the earliest, in {longest.days} days at the latest")
    text = make_token(secrets.token_bytes(2 * SECRET_BYTES))
    read = read_token(text)
    assert read is not None
    now = datetime.now(UTC)
    if tenant is not None:
        known_tenant(conn, tenant)
    token = NewToken(read.id, read.hash, who, role, tenant, once, now + lasts)
    store.add(conn, token, str(by), now)
    about = {"token": read.id, "who": who, "role": role, "tenant": tenant, "expires_at": rfc3339(token.expires_at)}
    audit.record(conn, by, "token new", about, 1, now, "done")
    return _view(store.shown(conn, read.id), now), text


def listed(engine: Engine, tenant: str | None) -> list[View]:
    """The newest tokens, of one tenant or of all of them; never a secret."""
    now = datetime.now(UTC)
    with snapshot(engine) as conn:
        return [_view(row, now) for row in store.listed(conn, tenant, MOST_LISTED)]


def revoke(engine: Engine, id_: str, by: By, tenant: str | None = None) -> bool:
    """Revokes a token at once, and with it the sessions that it began; False if there is no such token in use.

    With a tenant, only one of that tenant.
    """
    now = datetime.now(UTC)
    with transaction(engine) as conn:
        revoked = store.revoke(conn, id_, tenant, str(by), now)
        if revoked is not None:
            about = {"token": id_, "tenant": revoked["tenant"]}
            audit.record(conn, by, "token revoke", about, 1, now, "done")
    return revoked is not None


def principal_of(engine: Engine, text: str) -> Principal | None:
    """Whom a token lets in; None for one that is unknown, altered, expired, revoked, or good for a login only.

    That it is used is written down at most once a minute.
    """
    found = valid(engine, text)
    if found is None or found[1]["once"]:
        return None
    id_, row = found
    now = datetime.now(UTC)
    if row["last_used_at"] is None or row["last_used_at"] < now - NOTED_EVERY:
        with alone(engine) as conn:
            store.used(conn, id_, now, now - NOTED_EVERY)
    return Principal(row["who"], grants_of(row), "token", id_)


def grants_of(row: Row) -> dict[str, Role]:
    """What a token allows: its role for its tenant, or everywhere."""
    return {EVERYWHERE if row["tenant"] is None else row["tenant"]: row["role"]}


def valid(engine: Engine, text: str) -> tuple[str, Row] | None:
    """The id and the row of a token that is neither expired nor revoked; None for any other text."""
    read = read_token(text)
    if read is None:
        return None
    with alone(engine) as conn:
        row = store.find(conn, read.id)
    same = hmac.compare_digest(read.hash, _NOBODY if row is None else bytes(row["hash"]))
    if row is None or not same or row["revoked_at"] is not None or row["expires_at"] <= datetime.now(UTC):
        return None
    return read.id, row


def _view(row: Row, now: datetime) -> View:
    plain = ("id", "who", "role", "tenant", "once", "created_by", "revoked_by")
    times = ("created_at", "expires_at", "last_used_at", "revoked_at")
    view = {**{name: row[name] for name in plain}, **{name: rfc3339(row[name]) for name in times}}
    return {**view, "state": _state(row, now)}


def _state(row: Row, now: datetime) -> str:
    if row["revoked_at"] is not None:
        return "revoked"
    if row["expires_at"] <= now:
        return "expired"
    return "used" if row["once"] and row["last_used_at"] is not None else "active"
