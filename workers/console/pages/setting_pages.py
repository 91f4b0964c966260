"""Settings: who one is, the look of the pages, and tokens."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from starlette.responses import RedirectResponse, Response

from ops.admin.access import tokens
from schemas.access import EVERYWHERE, ROLES, Role
from schemas.units import seconds
from workers.console.call import Call, Refused
from workers.console.pages.layout import THEME, THEMES, go, render
from workers.console.pages.page_table import Act, Page, field
from workers.console.pages.questions import Question, ask, by, wrong
from workers.console.rendering.page_addresses import at, local

_YEAR: Final = 31_536_000  # seconds


def own(call: Call) -> Mapping[str, Any] | Response:
    """Settings of the one who asks; with those of all, or of the only tenant, for its admin."""
    asks = call.principal
    where = asks.tenant or EVERYWHERE
    admin = asks.may("admin", where)
    return {
        "admin": admin,
        "base": at(asks.tenant, "settings"),
        "tokens": tokens.listed(call.console.acts, asks.tenant) if admin else (),
        "roles": ROLES,
        "themes": THEMES,
        "only": asks.tenant,
    }


def choose_theme(call: Call) -> Response:
    """Remember the look that was chosen."""
    chosen = field(call, "theme")
    answer = go(call, local(field(call, "next") or "/settings"))
    if chosen in THEMES:
        secure = call.request.url.scheme == "https"
        answer.set_cookie(THEME, chosen, _YEAR, httponly=True, samesite="lax", secure=secure)
    return answer


def new_token(call: Call) -> Response:
    """Make a token, and show it, this once."""
    call.must_be_fresh()
    role, lasts = field(call, "role"), field(call, "lasts")
    if role not in ROLES:
        raise Refused(422, "role", f"a role is one of {', '.join(ROLES)}")
    try:
        length = timedelta(seconds=seconds(lasts))
    except ValueError:
        raise Refused(422, "lasts", "say how long it is to last as 30d or 12h") from None
    given: Role = role
    tenant = call.path.get("tenant") or field(call, "tenant") or None
    view, secret = tokens.new(call.console.acts, who=field(call, "who"), role=given, tenant=tenant, lasts=length, by=by(call))
    return render(call, "token.html", {"token": view, "secret": secret})


def revoke_question(call: Call) -> Response:
    """What revoking a token does."""
    return ask(call, _revoking(call))


def revoke(call: Call) -> Response:
    """End a token, and the sessions that it began."""
    if (again := wrong(call, _revoking(call))) is not None:
        return again
    moved = tokens.revoke(call.console.acts, str(call.path["id"]), by(call), call.path.get("tenant"))
    return go(call, "/settings", "The token is revoked." if moved else "There is no such token in use.")


def _revoking(call: Call) -> Question:
    said = "Whatever uses it is refused from now on, and the sessions that it began are ended. It cannot be taken back."
    id_, base = str(call.path["id"]), at(call.path.get("tenant"), "settings")
    return Question(
        title=f"Revoke the token {id_}",
        sentence=said,
        action=f"{base}/tokens/{id_}/revoke",
        cancel="/settings",
        submit="Revoke",
        reason="required",
        danger=True,
    )


PAGES: Final = [
    Page("/settings", None, "settings.html", own),
    Page("/t/{tenant}/settings", "viewer", "", lambda _call: RedirectResponse("/settings", 303)),
    *(Page(f"{under}/settings/tokens/{{id}}/revoke", "admin", "", revoke_question) for under in ("", "/t/{tenant}")),
]
ACTS: Final = [
    Act("/settings/theme", None, choose_theme),
    *(Act(f"{under}/settings/tokens", "admin", new_token) for under in ("", "/t/{tenant}")),
    *(Act(f"{under}/settings/tokens/{{id}}/revoke", "admin", revoke) for under in ("", "/t/{tenant}")),
]
