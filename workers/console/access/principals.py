"""Finds out who asks: by a token in `Authorization: Bearer`, or by the session whose id is in a cookie."""

from typing import Final

from anyio import CapacityLimiter, to_thread
from sqlalchemy import Engine
from starlette.requests import Request

from ops.admin.access import sessions, tokens
from ops.admin.access.rates import BAD_TOKENS, exceeded
from ops.console_settings import openid_policy
from ops.settings import Settings
from schemas.access import Principal
from workers.console.call import Refused, address_of

COOKIE: Final = "__Host-waxseal"
_ADVICE: Final = "log in, or send a token that is valid (`waxseal token new` makes one)"


class Authentication:
    """Asks the database about each request: what was revoked or ended a moment ago is refused.

    What is refused is answered in one way, whatever was wrong with it.
    """

    def __init__(self, settings: Settings, engine: Engine, threads: CapacityLimiter) -> None:
        self._policy = openid_policy(settings)
        self._engine = engine
        self._threads = threads

    async def __call__(self, request: Request) -> Principal:
        """The principal of a request. Raises `Refused`."""
        return await to_thread.run_sync(self._principal, request, limiter=self._threads)

    def _principal(self, request: Request) -> Principal:
        given, cookie = request.headers.getlist("authorization"), request.cookies.get(COOKIE)
        if len(given) > 1 or (given and cookie is not None):
            raise Refused(400, "two_credentials", "send a token or a session's cookie, not both")
        if given:
            return self._by_token(given[0], address_of(request))
        found = None if cookie is None else sessions.principal_of(self._engine, cookie, self._policy)
        if found is None:
            raise Refused(401, "unauthorized", _ADVICE)
        return found

    def _by_token(self, header: str, address: str) -> Principal:
        """Tokens cannot be guessed, so that a good one is let in however many bad ones came from the same address."""
        scheme, _, token = header.partition(" ")
        found = tokens.principal_of(self._engine, token.strip()) if scheme.lower() == "bearer" else None
        if found is not None:
            return found
        if seconds := exceeded(self._engine, BAD_TOKENS, address):
            raise Refused(429, "too_many", "too many requests without a valid token", {"Retry-After": str(seconds)})
        raise Refused(401, "unauthorized", _ADVICE)
