"""The table of operations, and the routes that are made of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from schemas.access import Role
from workers.console.call import Call, Console, Handler, carry_out

PREFIX: Final = "/api/v1"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: its method and path, the role that it needs, and what carries it out."""

    method: str
    path: str
    role: Role
    handler: Handler


def me(call: Call) -> Response:
    """Who asks, and what they may do."""
    return Response(
        orjson.dumps({"who": call.principal.who, "grants": dict(call.principal.grants)}), 200, {}, "application/json"
    )


OPERATIONS: Final[Sequence[Operation]] = ()


def routes(console: Console) -> list[BaseRoute]:
    """The routes of all operations."""
    return [_route(console, each) for each in OPERATIONS]


def _route(console: Console, operation: Operation) -> Route:
    async def answer(request: Request) -> Response:
        return await carry_out(console, request, operation.role, operation.handler)

    return Route(PREFIX + operation.path, answer, methods=[operation.method])
