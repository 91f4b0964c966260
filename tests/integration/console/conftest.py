"""A console on the module's database, which each test finds empty."""

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ops.admin.access import tokens
from ops.runtime.db import make_engine
from ops.settings import Settings
from schemas.access import Role
from support.console.browser import Browser
from support.console.running import running_console
from support.emptying import database
from workers.console.call import Call, Console, carry_out

__all__ = ["database"]

Token = Callable[..., str]


def probes(console: Console) -> Sequence[BaseRoute]:
    """Routes that say who asks: of the console, and of a tenant, as a page and as an operation, to see and to act."""

    def said(call: Call) -> Response:
        asks = call.principal
        about = {"who": asks.who, "grants": dict(asks.grants), "means": asks.means, "id": asks.id, "fresh": asks.fresh}
        actor = call.actor("why not")
        return Response(orjson.dumps({**about, "role": actor.role, "address": actor.address}), 200, {}, "application/json")

    def route(path: str, role: Role, method: str) -> BaseRoute:
        async def answer(request: Request) -> Response:
            return await carry_out(console, request, role, said)

        return Route(path, answer, methods=[method])

    paths = ("/probe", "/t/{tenant}/probe", "/api/v1/probe", "/api/v1/t/{tenant}/probe")
    roles: tuple[Role, ...] = ("viewer", "operator", "admin")
    return [route(f"{path}/{role}", role, method) for path in paths for role in roles for method in ("GET", "POST", "DELETE")]


@pytest.fixture(scope="module")
def console_settings(shared_database: Any) -> Settings:
    return Settings(database_url=shared_database.console_url, keys=shared_database.key, console_port=0)


@pytest.fixture(scope="module")
def shared_console(console_settings: Settings) -> Iterator[str]:
    with running_console(console_settings, probes) as url:
        yield url


@pytest.fixture(scope="module")
def probes_of() -> Callable[[Console], Sequence[BaseRoute]]:
    return probes


@pytest.fixture(scope="module")
def shared_acts(shared_database: Any) -> Iterator[Engine]:
    engine = make_engine(shared_database.console_url, pool_size=4)
    yield engine
    engine.dispose()


@pytest.fixture
def acts(database: Any, shared_acts: Engine) -> Engine:
    """A pool with the rights of the console; the database has the tenants acme and other."""
    database.add_tenant("acme")
    database.add_tenant("other")
    return shared_acts


@pytest.fixture
def browser(shared_console: str, acts: Engine) -> Browser:
    return Browser(shared_console)


@pytest.fixture
def token(acts: Engine) -> Token:
    """Makes a token; returns its secret."""

    def make(role: Role = "viewer", tenant: str | None = None, who: str = "ann", **more: Any) -> str:
        more = {"lasts": timedelta(hours=1), **more}
        return tokens.new(acts, who=who, role=role, tenant=tenant, by="test", **more)[1]

    return make
