"""Finds out who asks: by a token in `Authorization: Bearer`, or by the session whose id is in a cookie."""

from typing import Final

from anyio import CapacityLimiter, to_thread
from sqlalchemy import Engine
from starlette.requests import Request

from ops.admin.access import tokens
from ops.settings import Settings
from schemas.access import Principal
from workers.console.call import Refused

COOKIE: Final = "__Host-waxseal"
_ADVICE: Final = "log in, or send a token that is valid (`waxseal token new` makes one)"


class Authentication:
    """Asks the database about each request: what was revoked or ended a moment ago is refused.

    What is refused is answered in one way, whatever was wrong with it.
    """

    def __init__(self, settings: Settings, engine: Engine, threads: CapacityLimiter) -> None:
        self._settings = settings
        self._engine = engine
        self._threads = threads

    async def __call__(self, request: Request) -> Principal:
        """The principal of a request. Raises `Refused`."""
        return await to_thread.run_sync(self._principal, request, limiter=self._threads)

    def _principal(self, request: Request) -> Principal:
        given, cookie = request.headers.getlist("authorization"), request.cookies.get(COOKIE)
        if len(given) > 1 or (given and cookie is not None):
            raise Refused(400, "two_credentials", "send a token or a session's cookie, not both")
        found = self._by_token(given[0]) if given else None
        if found is None:
            raise Refused(401, "unauthorized", _ADVICE)
        return found

    def _by_token(self, header: str) -> Principal | None:
        scheme, _, token = header.partition(" ")
        return tokens.principal_of(self._engine, token.strip()) if scheme.lower() == "bearer" else None
