"""Logging in by a token, logging out, and one's own sessions."""

from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from ops.admin.access import sessions
from ops.admin.access.rates import LOGINS, exceeded
from ops.admin.access.sessions import Visitor
from schemas.access import EVERYWHERE
from workers.console.access.principals import COOKIE
from workers.console.access.screens import screen
from workers.console.call import Call, Console, Refused, address_of, carry_out, check_site
from workers.console.pages.layout import render

LOGIN: Final = "/login"
SESSIONS: Final = "/settings/sessions"
MOST_FIELDS: Final = 10
_LONGEST_NEXT: Final = 1000
_REFUSED: Final = "This token is not valid, or not any more."


def routes(console: Console) -> list[BaseRoute]:
    """The routes of logging in and out, and of sessions."""

    async def page(request: Request) -> Response:
        return login_page(console, request)

    async def submit(request: Request) -> Response:
        check_site(console.settings, request)
        form = await request.form(max_files=0, max_fields=MOST_FIELDS)
        given, ahead = form.get("token"), form.get("next")
        text = given.strip() if isinstance(given, str) else ""
        to = safe_next(ahead if isinstance(ahead, str) else None)
        return await to_thread.run_sync(_log_in, console, request, text, to, limiter=console.threads)

    async def out(request: Request) -> Response:
        return await carry_out(console, request, None, _log_out)

    async def listed(request: Request) -> Response:
        return await carry_out(console, request, None, _list)

    async def end(request: Request) -> Response:
        return await carry_out(console, request, None, _end)

    async def end_own(request: Request) -> Response:
        return await carry_out(console, request, None, _end_own)

    return [
        Route(LOGIN, page, methods=["GET"]),
        Route(LOGIN, submit, methods=["POST"]),
        Route("/logout", out, methods=["POST"]),
        Route(SESSIONS, listed, methods=["GET"]),
        Route(f"{SESSIONS}/end", end_own, methods=["POST"]),
        Route(f"{SESSIONS}/{{id}}/end", end, methods=["POST"]),
    ]


def login_page(
    console: Console, request: Request, error: str = "", status: int = 200, *, to: str | None = None, **headers: str
) -> Response:
    """The page where one logs in, and why the last try failed. It leads on to the page `to`, or that of the request."""
    to, fresh = safe_next(to or request.query_params.get("next")), "fresh" in request.query_params
    issuer = console.settings.oidc_issuer
    values = {
        "error": error,
        "next": to,
        "fresh": fresh,
        "provider": urlsplit(issuer).hostname or "",
        "openid_query": urlencode({"next": to, **({"fresh": "1"} if fresh else {})}),
    }
    return screen("login.html", values, status, headers)


def ask_to_log_in(request: Request) -> Response | None:
    """Leads a person who asked for a page to the login, and then back to that page; None for a program, and for an act."""
    if request.method != "GET" or "text/html" not in request.headers.get("accept", ""):
        return None
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"{LOGIN}?next={quote(wanted, safe='')}" if wanted != "/" else LOGIN, 303)


def safe_next(text: str | None) -> str:
    """The page to go on to: a path here, never an address elsewhere, as one that begins with two slashes is."""
    ours = text is not None and len(text) <= _LONGEST_NEXT and text.isprintable() and text.startswith("/")
    if text is None or not ours or text[1:2] in ("/", "\\") or text.partition("?")[0].rstrip("/") == LOGIN:
        return "/"
    return text


def visitor_of(request: Request) -> Visitor:
    """The browser that logs in."""
    agent = "".join(each for each in request.headers.get("user-agent", "") if each.isprintable())
    return Visitor(address_of(request), agent, str(request.state.id), request.cookies.get(COOKIE))


def logged_in(value: str, to: str) -> Response:
    """Goes on to a page with the cookie of a new session."""
    answer = RedirectResponse(to, 303)
    answer.set_cookie(COOKIE, value, path="/", secure=True, httponly=True, samesite="lax")
    return answer


def _log_in(console: Console, request: Request, text: str, to: str) -> Response:
    visitor = visitor_of(request)
    if seconds := exceeded(console.acts, LOGINS, visitor.address):
        wait = f"Too many logins from your address: wait {seconds} s."
        return login_page(console, request, wait, 429, to=to, **{"Retry-After": str(seconds)})
    value = sessions.begin_by_token(console.acts, text, visitor)
    return login_page(console, request, _REFUSED, 401, to=to) if value is None else logged_in(value, to)


def _log_out(call: Call) -> Response:
    if (value := call.request.cookies.get(COOKIE)) is not None:
        sessions.log_out(call.console.acts, value, call.actor())
    return _forgetful(RedirectResponse(LOGIN, 303))


def _list(call: Call) -> Response:
    asks = call.principal
    own = sessions.own(call.console.reads, asks.id)
    mine = {each["id"] for each in own}
    others = None
    if asks.may("admin", EVERYWHERE):
        others = [each for each in sessions.listed(call.console.reads) if each["id"] not in mine]
    return render(call, "sessions.html", {"own": own, "others": others})


def _end(call: Call) -> Response:
    id_ = str(call.path["id"])
    if not call.principal.may("admin", EVERYWHERE):
        mine = {each["id"] for each in sessions.own(call.console.acts, call.principal.id)}
        if id_ not in mine:
            raise Refused(404, "not_found", "there is no such session")
    sessions.end(call.console.acts, id_, call.actor())
    return _forgetful(RedirectResponse(LOGIN, 303)) if id_ == call.principal.id else RedirectResponse(SESSIONS, 303)


def _end_own(call: Call) -> Response:
    sessions.end_own(call.console.acts, call.principal.id, call.actor())
    return _forgetful(RedirectResponse(LOGIN, 303))


def _forgetful(answer: Response) -> Response:
    answer.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="lax")
    return answer
