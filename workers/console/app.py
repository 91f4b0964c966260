"""The console's web application: its routes, what every request goes through, and how errors are answered."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy.exc import DBAPIError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from ops.errors import OpsError, one_line
from ops.runtime.db import passes
from workers.console.access import login
from workers.console.api import operations
from workers.console.api.api_problems import problem
from workers.console.call import Console, Refused
from workers.console.middleware import Bounded, Identified
from workers.console.pages import page_table
from workers.console.pages.layout import refusal

API: Final = "/api/"
STATIC: Final = Path(__file__).parent / "static"

_log = structlog.get_logger()


def make_app(console: Console, more: Sequence[BaseRoute] = ()) -> Starlette:
    """The application; `more` are routes that come before its own."""

    async def failed(request: Request, error: Exception) -> Response:
        refused = _refusal(error, str(request.state.id))
        if request.url.path.startswith(API):
            return problem(request, refused)
        asked = login.ask_to_log_in(request) if refused.status == 401 else None
        return asked or refusal(request, refused)

    return Starlette(
        routes=[
            *more,
            *login.routes(console),
            *operations.routes(console),
            *page_table.routes(console),
            Mount("/static", StaticFiles(directory=STATIC), name="static"),
        ],
        middleware=[Middleware(Identified, https=console.settings.console_url.startswith("https://")), Middleware(Bounded)],
        exception_handlers={Exception: failed, Refused: failed, OpsError: failed, DBAPIError: failed, HTTPException: failed},
    )


def _refusal(error: Exception, request_id: str) -> Refused:
    """What the client is told of an error. An error of ours is logged, and named by its class only."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, HTTPException):
        return Refused(error.status_code, "not_found" if error.status_code == 404 else "method", error.detail, error.headers)
    if isinstance(error, OpsError):
        return Refused(409, "refused", str(error))
    if isinstance(error, DBAPIError) and passes(error):
        _log.warning("database_away", error=one_line(error), request_id=request_id)
        return Refused(503, "unavailable", "the database does not answer in time; try again", {"Retry-After": "5"})
    _log.error("request_failed", request_id=request_id, exc_info=error)
    return Refused(500, "internal", f"{type(error).__name__}; it has been logged with the request's id")
