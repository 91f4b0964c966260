"""The console's web application: its routes, what every request goes through, and how errors are answered."""

from collections.abc import Sequence
from typing import Final

import structlog
from sqlalchemy.exc import DBAPIError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ops.errors import OpsError, UnknownTenant, one_line
from ops.runtime.db import passes
from workers.console.access import login, openid_login
from workers.console.api import operations
from workers.console.api.api_problems import problem
from workers.console.call import Console, Refused
from workers.console.middleware import Bounded, Identified, TooLarge
from workers.console.pages import every_page
from workers.console.pages.layout import refusal
from workers.console.rendering import asset_files

API: Final = "/api/"

_log = structlog.get_logger()


def make_app(console: Console, more: Sequence[BaseRoute] = ()) -> Starlette:
    """The application; `more` are routes that come before its own."""
    return Starlette(
        routes=[
            *more,
            *login.routes(console),
            *openid_login.routes(console),
            *operations.routes(console),
            *every_page.routes(console),
            asset_files.ROUTE,
        ],
        middleware=[
            Middleware(Identified, https=console.settings.console_url.startswith("https://")),
            Middleware(Bounded),
            Middleware(_Failing),
        ],
        exception_handlers={HTTPException: _failed},
    )


class _Failing:
    """Answers a request that failed. What Starlette answers itself, after any other error, would lack our headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            if begun or isinstance(error, TooLarge):
                raise
            await (await _failed(Request(scope), error))(scope, receive, send)


async def _failed(request: Request, error: Exception) -> Response:
    refused = _refusal(error, str(request.state.id))
    if request.url.path.startswith(API):
        return problem(request, refused)
    asked = login.ask_to_log_in(request) if refused.status == 401 else None
    return asked or refusal(request, refused)


def _refusal(error: Exception, request_id: str) -> Refused:
    """What the client is told of an error. An error of ours is logged, and named by its class only."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, HTTPException):
        return Refused(error.status_code, "not_found" if error.status_code == 404 else "method", error.detail, error.headers)
    if isinstance(error, UnknownTenant):
        return Refused(404, "not_found", "there is no such tenant")
    if isinstance(error, OpsError):
        return Refused(409, "refused", str(error))
    if isinstance(error, DBAPIError) and passes(error):
        _log.warning("database_away", error=one_line(error), request_id=request_id)
        return Refused(503, "unavailable", "the database does not answer in time; try again", {"Retry-After": "5"})
    _log.error("request_failed", request_id=request_id, exc_info=error)
    return Refused(500, "internal", f"{type(error).__name__}; it has been logged with the request's id")
