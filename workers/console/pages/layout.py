"""Renders pages: what each of them is given beside its own values, and the page that says why a request was not carried out."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from schemas.access import EVERYWHERE, Role
from workers.console.call import Call, Refused
from workers.console.rendering.navigation import tabs
from workers.console.rendering.page_addresses import local
from workers.console.rendering.templates import page

THEME: Final = "waxseal_theme"  # names of cookies
NOTICE: Final = "waxseal_notice"
THEMES: Final = ("auto", "light", "dark")
FRAGMENT: Final = "fragment"  # in Accept: only the part that changes is wanted
_NOTICE_SECONDS: Final = 30
_LONGEST_NOTICE: Final = 300


def render(call: Call, template: str, values: Mapping[str, Any], status: int = 200) -> Response:
    """The page of a template for the one who asks, or only its changing part for the script that refreshes it."""
    fragment = FRAGMENT in call.request.headers.get("accept", "")
    tenant = call.path.get("tenant")
    within = tenant or call.principal.tenant  # whose places the rail has
    notice = unquote(call.request.cookies.get(NOTICE, ""))[:_LONGEST_NOTICE]
    url = call.request.url
    given = {
        "layout": "fragment.html" if fragment else "layout.html",
        "tenant": tenant,
        "me": call.principal,
        "csrf": call.principal.csrf or "",
        "may": lambda role: may(call, role),
        "within": within,
        "tabs": tabs(call.principal, within),
        "here": url.path,
        "again": url.path + (f"?{url.query}" if url.query else "") if call.request.method == "GET" else None,
        "theme": theme(call),
        "notice": notice,
        "now": datetime.now(UTC),
    }
    text = page(template, {**given, **values})
    if fragment:
        return _fragment(call, text)
    answer = HTMLResponse(text, status)
    if notice:
        answer.delete_cookie(NOTICE)
    return answer


def _fragment(call: Call, text: str) -> Response:
    tag = f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
    if call.request.headers.get("if-none-match") == tag:
        return Response(None, 304, {"ETag": tag})
    return HTMLResponse(text, 200, {"ETag": tag})


def may(call: Call, role: Role) -> bool:
    """Whether the one who asks has this role for the tenant of the page, or for everything."""
    return call.principal.may(role, call.path.get("tenant") or EVERYWHERE)


def theme(call: Call) -> str:
    """The look that this browser chose, or that of the settings."""
    chosen = call.request.cookies.get(THEME, "")
    return chosen if chosen in THEMES else call.console.settings.console_theme


def go(call: Call, address: str, notice: str = "") -> Response:
    """After an act: to a page, which shows the notice once."""
    answer = RedirectResponse(address, 303)
    if notice:
        secure = call.request.url.scheme == "https"
        shown = quote(notice[:_LONGEST_NOTICE])
        answer.set_cookie(NOTICE, shown, _NOTICE_SECONDS, httponly=True, samesite="strict", secure=secure)
    return answer


def refusal(request: Request, refused: Refused) -> Response:
    """The page that says why a request was not carried out, and what to do."""
    chosen = request.cookies.get(THEME, "")
    came_from = urlsplit(request.headers.get("referer", ""))
    values = {
        "back": quote(local(came_from.path + (f"?{came_from.query}" if came_from.query else "")), safe=""),
        "refused": refused,
        "request_id": request.state.id,
        "theme": chosen if chosen in THEMES else "auto",
        "path": request.url.path,
    }
    return HTMLResponse(page("refused.html", values), refused.status, refused.headers)
