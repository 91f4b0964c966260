"""Finds out who asks: by a token in `Authorization: Bearer`, or by the session whose id is in a cookie."""

from sqlalchemy import Engine
from starlette.requests import Request

from ops.settings import Settings
from schemas.access import Principal
from workers.console.call import Refused


class Authentication:
    """Asks the database about each request: what was revoked a moment ago is refused."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine

    async def __call__(self, request: Request) -> Principal:
        """The principal of a request. Raises `Refused`."""
        del request
        raise Refused(401, "unauthorized", "a token is needed: `waxseal token new` makes one")
