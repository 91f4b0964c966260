"""A real HTTP server in place of a mail provider's API. It records requests, and can be told to misbehave."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web

from support.net.loop_thread import LoopThread


@dataclass(frozen=True)
class Asked:
    """One request, as received."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    form: Mapping[str, str] = field(default_factory=dict)

    def one(self, name: str) -> str | None:
        """The only value of a query parameter, or None."""
        values = self.query.get(name, [])
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def bearer(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")


@dataclass(frozen=True)
class Said:
    """An answer: JSON, or bytes as they are."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        if isinstance(self.body, bytes):
            return web.Response(status=self.status, body=self.body, headers=self.headers)
        return web.json_response(self.body, status=self.status, headers=self.headers)


Answer = Said | str  # one of the faults below by its name
Meanwhile = Callable[[], None]


@dataclass
class Tokens:
    """An OAuth 2.0 token endpoint (RFC 6749 section 6) that may give out a new refresh token with each access token."""

    client: tuple[str, str] = ("app", "shh")
    refresh: set[str] = field(default_factory=lambda: {"refresh-0"})
    access: set[str] = field(default_factory=set)
    rotates: bool = True
    strict: bool = False  # a refresh token is valid once
    seconds: int = 3599
    granted: int = 0
    pending: list[str] = field(default_factory=list)  # errors that are answered before the user enters the code
    refusal: Callable[[str], dict[str, Any]] = lambda error: {"error": error}

    def answer(self, form: Mapping[str, str]) -> Said:
        if (form.get("client_id"), form.get("client_secret")) != self.client:
            return Said(401, self.refusal("invalid_client"))
        if form.get("grant_type", "").endswith("device_code"):
            if self.pending:
                return Said(400, {"error": self.pending.pop(0), "error_description": "AADSTS70016: pending"})
        elif form.get("grant_type") != "refresh_token" or form.get("refresh_token") not in self.refresh:
            return Said(400, self.refusal("invalid_grant"))
        self.granted += 1
        given = {"access_token": f"access-{self.granted}", "expires_in": self.seconds, "token_type": "Bearer"}
        self.access.add(given["access_token"])
        if self.rotates:
            if self.strict:
                self.refresh.discard(form.get("refresh_token", ""))
            given["refresh_token"] = f"refresh-{self.granted}"
            self.refresh.add(given["refresh_token"])
        return Said(200, given)

    def code(self, form: Mapping[str, str]) -> Said:
        """A device code (RFC 8628 section 3.2)."""
        if form.get("client_id") != self.client[0] or not form.get("scope"):
            return Said(400, self.refusal("invalid_client"))
        code = {"user_code": "GTHK-QPMN", "device_code": "device-1", "verification_uri": "https://microsoft.com/devicelogin"}
        return Said(200, {**code, "expires_in": 900, "interval": 5, "message": "To sign in, enter the code GTHK-QPMN."})

    def revoke(self) -> None:
        """The user withdraws consent."""
        self.refresh.clear()
        self.access.clear()


class Fake:
    """Serves from its own thread, from `start` to `stop`. The test changes its state between requests."""

    token_path = "/token"

    def __init__(self, tokens: Tokens, answer: Callable[[Asked], Said], unauthorized: Said) -> None:
        """`answer` gives the provider's answer to a request with a valid token, `unauthorized` is that to any other."""
        self.tokens = tokens
        self._usual = answer
        self._unauthorized = unauthorized
        self.asked: list[Asked] = []
        self.port = 0
        self.most_at_once = 0
        self.takes = 0.0  # seconds before each answer
        self._at_once = 0
        self._instead: dict[str, deque[Answer]] = defaultdict(deque)
        self._before: dict[str, deque[Meanwhile]] = defaultdict(deque)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token_url(self) -> str:
        return f"{self.url}{self.token_path}"

    def instead(self, part: str, *answers: Answer) -> None:
        """Gives these answers to the next requests whose path contains `part`, instead of the usual ones."""
        self._instead[part].extend(answers)

    def calm(self) -> None:
        """Drops the answers given to `instead`."""
        self._instead.clear()

    def before(self, part: str, what: Meanwhile) -> None:
        """Calls `what` just before the next request whose path contains `part` is answered."""
        self._before[part].append(what)

    def paths(self, part: str = "") -> list[str]:
        return [asked.path for asked in self.asked if part in asked.path]

    def start(self) -> None:
        self.thread = LoopThread()
        self.thread.do(self._open())

    def stop(self) -> None:
        self.thread.loop.call_soon_threadsafe(self._released.set)
        self.thread.do(self._runner.cleanup())
        self.thread.stop()

    async def _open(self) -> None:
        self._released = asyncio.Event()
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(application, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        assert self._runner.addresses
        self.port = self._runner.addresses[0][1]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        query = {name: request.query.getall(name) for name in request.query}
        asked = Asked(request.method, request.path, query, dict(request.headers), form)
        self.asked.append(asked)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await self._answer(request, asked)
        finally:
            self._at_once -= 1

    async def _answer(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        await asyncio.sleep(self.takes)
        for part, happenings in self._before.items():
            if part in asked.path and happenings:
                happenings.popleft()()
        scripted = next((queue.popleft() for part, queue in self._instead.items() if part in asked.path and queue), None)
        if isinstance(scripted, str):
            return await FAULTS[scripted](self, request)
        if scripted is not None:
            return scripted.response()
        if asked.path == self.token_path:
            return self.tokens.answer(asked.form).response()
        if asked.path.endswith("/devicecode"):
            return self.tokens.code(asked.form).response()
        allowed = asked.bearer in self.tokens.access
        return (self._usual(asked) if allowed else self._unauthorized).response()


_Fake = TypeVar("_Fake", bound=Fake)


@contextmanager
def serving(fake: _Fake) -> Iterator[_Fake]:
    """The fake, served while the block runs."""
    fake.start()
    try:
        yield fake
    finally:
        fake.stop()


async def hang(fake: Fake, _request: web.Request) -> web.StreamResponse:
    await fake._released.wait()
    return web.Response(status=504)


async def drop(_fake: Fake, request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def garbage(_fake: Fake, _request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"<html>not what was asked for</html>", content_type="text/html")


async def trickle(fake: Fake, request: web.Request) -> web.StreamResponse:
    """Begins an answer, and then sends a byte every 50 ms, for ever."""
    response = web.StreamResponse()
    await response.prepare(request)
    while not fake._released.is_set():
        await response.write(b" ")
        await asyncio.sleep(0.05)
    return response


async def endless(fake: Fake, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while not fake._released.is_set():
        await response.write(b"x" * 65_536)
    return response


async def elsewhere(fake: Fake, _request: web.Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": f"{fake.url}/elsewhere"})


FAULTS: dict[str, Callable[[Fake, web.Request], Awaitable[web.StreamResponse]]] = {
    each.__name__: each for each in (hang, drop, garbage, trickle, endless, elsewhere)
}
