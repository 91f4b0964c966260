"""What every answer of the console goes through: its request's id, its headers, the bound of a body, and the log line."""

import re
import time
import uuid
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY: Final = 4 * 1024 * 1024  # bytes of a request; an uploaded configuration is the largest
_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}")

_log = structlog.get_logger()

#: Nothing from elsewhere, nothing inline, in nobody's frame; scripts may not make HTML of text.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types console"
)
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send `Origin: null` with forms
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Identified:
    """Gives each request an id, taken from X-Request-ID or made, and logs how it was answered."""

    def __init__(self, app: ASGIApp, https: bool) -> None:
        self._app = app
        self._headers = {**HEADERS, **({"Strict-Transport-Security": "max-age=31536000"} if https else {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        id_ = given if _ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["id"] = id_
        began, status = time.perf_counter(), 0

        async def headed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                headers["X-Request-ID"] = id_
            await send(message)

        try:
            await self._app(scope, receive, headed)
        finally:
            seconds = round(time.perf_counter() - began, 4)
            _log.info("answered", method=scope["method"], path=scope["path"], status=status, seconds=seconds, request_id=id_)


class Bounded:
    """Refuses a body over `MOST_BODY` bytes, whatever its Content-Length says."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > MOST_BODY:
            await _too_large(scope)(scope, receive, send)
            return
        left, answered = MOST_BODY, False

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._app(scope, counted, noted)
        except TooLarge:
            if answered:
                raise
            await _too_large(scope)(scope, receive, send)


class TooLarge(Exception):
    """A body that is larger than its request announced, or than allowed."""


def _too_large(scope: Scope) -> JSONResponse:
    """A problem (RFC 9457), which people can read, too."""
    told = {"type": "urn:waxseal:problem:too-large", "title": "Content Too Large", "status": 413}
    told |= {"detail": f"at most {MOST_BODY} bytes", "request_id": scope["state"]["id"]}
    return JSONResponse(told, 413, media_type="application/problem+json")
