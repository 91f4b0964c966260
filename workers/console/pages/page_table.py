"""A page and an act, and the routes that are made of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from ops.admin.configured import configured
from ops.admin.search.cursors import BadCursor
from ops.admin.search.found import BadSearch
from schemas.access import Role
from workers.console.call import MOST_FIELDS, Call, Console, Handler, Refused, carry_out
from workers.console.pages.layout import render

MOST_TEXT: Final = 2 * 1024 * 1024  # bytes of one field: an uploaded configuration that is sent back is the largest

Read = Callable[[Call], Mapping[str, Any] | Response]
"""Gives a template its values, or another answer, such as a redirect."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its path, the role that it needs, its template, and what gives the template its values.

    A page without a role is for everybody who has logged in.
    """

    path: str
    role: Role | None
    template: str
    read: Read


@dataclass(frozen=True, slots=True)
class Act:
    """One act: where its form is posted to, the role that it needs, and what carries it out. `Call.body` is the form."""

    path: str
    role: Role | None
    carry: Handler


def page_route(console: Console, page: Page) -> Route:
    """The route of a page."""

    def show(call: Call) -> Response:
        tenant = call.path.get("tenant")
        if tenant is not None and not configured.is_tenant(call.console.reads, tenant):
            raise Refused(404, "not_found", "there is no such tenant")
        try:
            found = page.read(call)
        except (BadCursor, BadSearch) as error:
            raise Refused(422, "filter", str(error)) from error
        return found if isinstance(found, Response) else render(call, page.template, found)

    async def answer(request: Request) -> Response:
        return await carry_out(console, request, page.role, show)

    return Route(page.path, answer, methods=["GET"])


def act_route(console: Console, act: Act) -> Route:
    """The route of an act, which a form is posted to."""

    async def answer(request: Request) -> Response:
        form = await request.form(max_files=1, max_fields=MOST_FIELDS, max_part_size=MOST_TEXT)
        return await carry_out(console, request, act.role, act.carry, form)

    return Route(act.path, answer, methods=["POST"])


def back_route(act: Act) -> Route:
    """The route of an act's address for those who only ask for it, as after a login: what it is an act on."""

    async def answer(request: Request) -> Response:
        return RedirectResponse(request.url.path.rpartition("/")[0], 303)

    return Route(act.path, answer, methods=["GET"])


def field(call: Call, name: str, most: int = 2000) -> str:
    """The text of a form's field without the spaces around it; empty if there is none."""
    given = call.body.get(name, "") if isinstance(call.body, FormData) else ""
    return given.strip()[:most] if isinstance(given, str) else ""
