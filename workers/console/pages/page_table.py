"""The table of pages, and the routes that are made of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from schemas.access import Role
from workers.console.call import Call, Console, carry_out
from workers.console.pages.layout import render


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its path, the role that it needs, its template, and what gives the template its values."""

    path: str
    role: Role
    template: str
    read: Callable[[Call], Mapping[str, Any]]


PAGES: Final[Sequence[Page]] = ()


def routes(console: Console) -> list[BaseRoute]:
    """The routes of all pages."""
    return [_route(console, page) for page in PAGES]


def _route(console: Console, page: Page) -> Route:
    def show(call: Call) -> Response:
        return render(call, page.template, page.read(call))

    async def answer(request: Request) -> Response:
        return await carry_out(console, request, page.role, show)

    return Route(page.path, answer, methods=["GET"])
