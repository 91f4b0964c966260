"""Logins at an OpenID provider: each is bound to the browser that began it, ends soon, and can be completed once.

The browser keeps one secret in a cookie for all of its logins, so that two of them at once do not disturb each other.
"""

import base64
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

from sqlalchemy import Engine

from ops.runtime.db import transaction
from pipeline.store.access import attempts as store
from pipeline.store.access.attempts import Attempt

LASTS: Final = timedelta(minutes=10)
MOST: Final = 10_000  # under way at once
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Begun:
    """What is sent to the provider, and what the browser has to keep (`browser`)."""

    state: str
    nonce: str
    challenge: str
    browser: str


def start(engine: Engine, browser: str | None, to: str, *, fresh: bool) -> Begun | None:
    """Begins a login of a browser, which goes on to the page `to`; None if too many are under way."""
    kept = browser if browser is not None and _SECRET.fullmatch(browser) else secrets.token_urlsafe(32)
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    now = datetime.now(UTC)
    with transaction(engine) as conn:
        attempt = Attempt(nonce, verifier, to, fresh, now, now + LASTS)
        if not store.add(conn, _hash(state), _hash(kept), attempt, MOST):
            return None
    challenge = base64.urlsafe_b64encode(_hash(verifier)).decode().rstrip("=")  # RFC 7636, S256
    return Begun(state, nonce, challenge, kept)


def take(engine: Engine, state: str, browser: str) -> Attempt | None:
    """Takes out the login of this state, if this browser began it and it has not ended. It cannot be completed again."""
    with transaction(engine) as conn:
        attempt = store.take(conn, _hash(state), _hash(browser))
    return attempt if attempt is not None and attempt.ends_at > datetime.now(UTC) else None


def _hash(secret: str) -> bytes:
    return sha256(secret[:200].encode(errors="replace")).digest()
