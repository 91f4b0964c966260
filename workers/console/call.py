"""What a page or an operation is given, and how it is guarded: who asks is known, and may do this, before its handler runs."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from anyio import CapacityLimiter, to_thread
from sqlalchemy import Engine
from starlette.requests import Request
from starlette.responses import Response

from ops.settings import Settings
from schemas.access import EVERYWHERE, Actor, Principal, Role

_log = structlog.get_logger()


@dataclass(frozen=True)
class Console:
    """What all requests share.

    `reads` is a pool with the rights of waxseal_reader, read-only, whose statements end after `console_patience` seconds;
    `acts` one with those of waxseal_console. `threads` bounds how many handlers run at once.
    """

    settings: Settings
    reads: Engine
    acts: Engine
    threads: CapacityLimiter
    authenticate: Callable[[Request], Awaitable[Principal]]


@dataclass(frozen=True)
class Call:
    """One request: who asks, from which address, and for what. `body` is what the route has read of it."""

    console: Console
    principal: Principal
    request: Request
    body: Any = None

    @property
    def id(self) -> str:
        """The request's id, which its answer and its log lines carry."""
        return str(self.request.state.id)

    @property
    def address(self) -> str:
        """The client's address, as the audit records it."""
        return self.request.client.host if self.request.client else ""

    def actor(self, reason: str = "") -> Actor:
        """Who acts, by what, in which role and from where, as the audit records it."""
        asks = self.principal
        role = asks.role_in(self.path.get("tenant", EVERYWHERE)) or ""
        return Actor(asks.who, asks.means, asks.id, role, self.address, self.id, reason)

    @property
    def path(self) -> Mapping[str, Any]:
        """The parameters in the path."""
        return self.request.path_params

    @property
    def tenant(self) -> str:
        """The tenant in the path."""
        return str(self.path["tenant"])

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters after the question mark; of one that is given several times, the last."""
        return self.request.query_params


Handler = Callable[[Call], Response]
"""Answers a call, in a thread of its own."""


class Refused(Exception):
    """A request that is not carried out; the client gets to see `detail`."""

    def __init__(self, status: int, name: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.name = name
        self.detail = detail
        self.headers = dict(headers or {})


def permit(principal: Principal, role: Role, tenant: str | None) -> None:
    """Raise `Refused` unless the principal has this role for the tenant, or for everything if there is none.

    A tenant that it does not see is not found, so that names of tenants cannot be guessed.
    """
    where = EVERYWHERE if tenant is None else tenant
    if principal.may(role, where):
        return
    if tenant is not None and principal.role_in(tenant) is None:
        raise Refused(404, "not_found", "there is no such tenant")
    raise Refused(403, "forbidden", f"this needs the role {role}" + ("" if tenant is None else f" for {tenant}"))


async def carry_out(console: Console, request: Request, role: Role, handler: Handler, body: Any = None) -> Response:
    """Authenticate, permit, and run the handler in a thread. Raises `Refused`, and what the handler raises."""
    principal = await console.authenticate(request)
    permit(principal, role, request.path_params.get("tenant"))
    call = Call(console, principal, request, body)
    return await to_thread.run_sync(handler, call, limiter=console.threads)
