"""What a page or an operation is given, and how it is guarded: who asks is known, and may do this, before its handler runs."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

import structlog
from anyio import CapacityLimiter, to_thread
from sqlalchemy import Engine
from starlette.requests import Request
from starlette.responses import Response

from ops.admin.access import refusals
from ops.admin.access.cross_site import SAFE, foreign, lacks_secret
from ops.admin.status.queue_watch import NO_QUEUES, QueueWatch
from ops.settings import Settings
from schemas.access import EVERYWHERE, Actor, Principal, Role
from workers.console.pace import Pace

MOST_FIELDS: Final = 300  # of a form: a page's ticked rows are the most
_LONGEST_ADDRESS: Final = 64  # characters
_SHOWN_PATH: Final = 200  # characters
_FORMS: Final = ("application/x-www-form-urlencoded", "multipart/form-data")

_Found = TypeVar("_Found")

_log = structlog.get_logger()


@dataclass(frozen=True)
class Console:
    """What all requests share.

    `reads` is a pool with the rights of waxseal_reader, read-only, whose statements end after `console_patience` seconds;
    `acts` one with those of waxseal_console. `threads` bounds how many handlers run at once,
    `pace` how much of the time those that read take. `queues` looks at the broker.
    """

    settings: Settings
    reads: Engine
    acts: Engine
    threads: CapacityLimiter
    authenticate: Callable[[Request], Awaitable[Principal]]
    queues: QueueWatch = NO_QUEUES
    pace: Pace = field(default_factory=Pace)


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
        return address_of(self.request)

    def actor(self, reason: str = "") -> Actor:
        """Who acts, by what, in which role and from where, as the audit records it."""
        asks = self.principal
        role = asks.role_in(self.path.get("tenant", EVERYWHERE)) or ""
        return Actor(asks.who, asks.means, asks.id, role, self.address, self.id, reason)

    def must_be_fresh(self) -> None:
        """Raise `Forbidden` unless the one who asks proved a few minutes ago who it is: for what is to be revealed."""
        if not self.principal.fresh:
            raise Forbidden(403, "login_again", "log in again to see this: the last login was more than 5 minutes ago")

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


class Forbidden(Refused):
    """Something that the one who asks may not do, or not now: if it would change anything, the audit has it."""


def existing(found: _Found | None, what: str) -> _Found:
    """What was found. Raises `Refused` if there is none."""
    if found is None:
        raise Refused(404, "not_found", f"there is no such {what}")
    return found


def address_of(request: Request) -> str:
    """The client's address; behind a proxy of the settings, what that says it is."""
    return request.client.host[:_LONGEST_ADDRESS] if request.client else ""


def permit(principal: Principal, role: Role, tenant: str | None) -> None:
    """Raise `Forbidden` unless the principal has this role for the tenant, or for everything if there is none.

    A tenant that it does not see is not found, so that names of tenants cannot be guessed.
    """
    where = EVERYWHERE if tenant is None else tenant
    if principal.may(role, where):
        return
    if tenant is not None and principal.role_in(tenant) is None:
        raise Forbidden(404, "not_found", "there is no such tenant")
    raise Forbidden(403, "forbidden", f"this needs the role {role}" + ("" if tenant is None else f" for {tenant}"))


async def carry_out(console: Console, request: Request, role: Role | None, handler: Handler, body: Any = None) -> Response:
    """Authenticate, permit, and run the handler in a thread. Raises `Refused`, and what the handler raises.

    A request that changes something, by a session's cookie, must come from a page of that session. Without a role it is for
    everybody who is known. A form that the route has not read is read here. Acts that are refused are in the audit, those that
    the handler refuses as `Forbidden` too.
    """
    principal = await console.authenticate(request)
    if body is None and _is_form(request):
        body = await request.form(max_files=1, max_fields=MOST_FIELDS)
    call = Call(console, principal, request, body)
    try:
        if principal.means == "session":
            check_site(console.settings, request)
            _check_secret(call)
        if role is not None:
            permit(principal, role, request.path_params.get("tenant"))
    except Refused as refused:
        await _note(call, refused)
        raise
    try:
        if request.method in SAFE:
            return await console.pace.run(principal.who, partial(handler, call), console.threads)
        return await to_thread.run_sync(handler, call, limiter=console.threads)
    except Forbidden as refused:
        await _note(call, refused)
        raise


async def _note(call: Call, refused: Refused) -> None:
    if call.request.method not in SAFE:
        console, about = call.console, _act(call.request)
        await to_thread.run_sync(refusals.note, console.acts, call.actor(), about, refused.detail, limiter=console.threads)


def check_site(settings: Settings, request: Request) -> None:
    """Raise `Refused` for a request that changes something and may come from another site."""
    if why := foreign(request.method, request.headers, settings.console_url):
        raise Refused(403, "other_site", why)


def _check_secret(call: Call) -> None:
    """What only pages of the session know comes in a form's field, or from a script in a header."""
    given = call.request.headers.get("x-csrf-token")
    if given is None and isinstance(call.body, Mapping):
        field = call.body.get("csrf")
        given = field if isinstance(field, str) else None
    if call.request.method not in SAFE and lacks_secret(call.principal.csrf or "", given):
        raise Refused(403, "stale_form", "this page is from an earlier login, or not ours: load it again, and send it again")


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() in _FORMS


def _act(request: Request) -> Mapping[str, str]:
    """A refused act, as the audit names it. The tenant is in the path; it may be one that the principal does not see."""
    return {"method": request.method, "path": request.url.path[:_SHOWN_PATH]}
