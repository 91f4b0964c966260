"""A blocking HTTPS client for mail providers: a few requests at once, each with a deadline and a bound on its answer.

The deployment's network settings for deliveries hold here too: allowed addresses, and the proxy. Import this module where a
client is made: aiohttp takes a sixth of a mail process's start, and IMAP with a password does not need it.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final, Self
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from ops.runtime.tls import system_context
from pipeline.delivery.addresses import Network, literal, refused_host
from workers.mail.api.exchange import AT_ONCE, Answer, Request
from workers.mail.mailbox_session import MAX_BYTES, Away
from workers.net.dial import Dialler, Refused
from workers.net.terms import Terms

CONNECT_SECONDS: Final = 15.0
SILENCE_SECONDS: Final = 30.0  # between two pieces of an answer
_SMALL: Final = 1024 * 1024  # bytes; larger answers are read one at a time
_PIECE: Final = 256 * 1024
_NO_BODY: Final = b""


def _no_hold(_size: int) -> None:
    """The default of `hold`: no memory is shared with others."""


class _Resolver(AbstractResolver):
    """Resolves names for aiohttp to the allowed addresses only."""

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address[0], port=port, family=family_, proto=protocol, flags=0)
            for family_, _, protocol, _, address in await self._dialler.find(host, port, family)
        ]

    async def close(self) -> None:
        """The dialler is closed by its owner."""


class MailHttp:
    """Connections to one provider, until `close`. For one thread at a time, without a running event loop."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._runner = asyncio.Runner()
        self._session: aiohttp.ClientSession | None = None
        self._dialler: Dialler | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(
        self, requests: Sequence[Request], seconds: float, budget: int = 0, hold: Callable[[int], None] | None = None
    ) -> list[Answer | Away | None]:
        """The results of the requests, in order; `AT_ONCE` at a time, within `seconds` for all together.

        After `budget` bytes of large answers, no other large one is read, and its result is None. Before a large one is read,
        `hold` is called with the most bytes that it may have, in place of the value before; what it raises is raised.
        """
        return self._runner.run(self._ask(requests, seconds, _LargeAnswers(budget, hold or _no_hold)))

    def close(self) -> None:
        """Close all connections."""
        try:
            self._runner.run(self._close())
        finally:
            self._runner.close()

    async def _close(self) -> None:
        if self._session is not None:
            await self._session.close()
        if self._dialler is not None:
            await self._dialler.close()

    async def _ask(self, requests: Sequence[Request], seconds: float, large: "_LargeAnswers") -> list[Answer | Away | None]:
        until = asyncio.get_running_loop().time() + seconds
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(request: Request) -> Answer | Away | None:
            try:
                async with asyncio.timeout_at(until), slots:
                    return await self._exchange(request, large)
            except TimeoutError:
                return _late(seconds)
            except (aiohttp.ClientError, OSError, ssl.SSLError, ValueError) as error:
                return _failed(request, error)

        return await asyncio.gather(*map(one, requests))

    async def _exchange(self, request: Request, large: "_LargeAnswers") -> Answer | None:
        check_url(request.url, self._terms.allowed)
        host = urlsplit(request.url).hostname or ""
        if self._terms.proxy is not None and (why := refused_host(host, self._terms.allowed)):
            raise Refused(f"{host} must not be asked for: {why}; WAXSEAL_ALLOW_NETWORKS lists exceptions")
        headers = {"Accept-Encoding": "identity", "User-Agent": self._terms.user_agent, **request.headers}
        method = "GET" if request.form is None else "POST"
        asking = self._open().request(
            method, URL(request.url, encoded=True), data=request.form, headers=headers, allow_redirects=False
        )
        async with asking as response:
            return await _read(response, request.limit, large)

    def _open(self) -> aiohttp.ClientSession:
        """The session, made at first use, because it needs the running loop."""
        if self._session is None:
            proxy = None if self._terms.proxy is None else URL(self._terms.proxy)
            self._dialler = Dialler(self._terms.allowed if proxy is None else None)
            connector = aiohttp.TCPConnector(
                limit=AT_ONCE, ssl=system_context(), resolver=_Resolver(self._dialler), socket_factory=self._dialler.make_socket
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS),
                proxy=proxy,
            )
        return self._session


class _LargeAnswers:
    """The budget and the lock that the large answers of one `ask` share."""

    def __init__(self, budget: int, hold: Callable[[int], None]) -> None:
        self.free = budget
        self.hold = hold
        self.lock = asyncio.Lock()


async def _read(response: aiohttp.ClientResponse, limit: int, large: _LargeAnswers) -> Answer | None:
    headers = {name.lower(): value for name, value in response.headers.items()}
    if (response.content_length or 0) > limit:
        response.close()
        return Answer(response.status, headers, _NO_BODY, too_large=True)
    body = bytearray()
    if (response.content_length or 0) <= _SMALL and await _fill(body, response, _SMALL):
        return Answer(response.status, headers, body)
    async with large.lock:  # an answer that waits here is not read, so its bytes stay with the provider
        if large.free <= 0:
            response.close()
            return None
        # `hold` blocks the loop on purpose: nothing else is to be read meanwhile.
        large.hold(MAX_BYTES)
        whole = await _fill(body, response, min(limit, MAX_BYTES))
        if not whole and limit > MAX_BYTES:
            large.hold(response.content_length or limit)
            whole = await _fill(body, response, limit)
        large.free -= len(body)
    if whole:
        return Answer(response.status, headers, body)
    response.close()
    return Answer(response.status, headers, _NO_BODY, too_large=True)


async def _fill(body: bytearray, response: aiohttp.ClientResponse, limit: int) -> bool:
    """Reads the answer into `body`; false once it has more than `limit` bytes."""
    while piece := await response.content.read(_PIECE):
        body += piece
        if len(body) > limit:
            return False
    return True


def check_url(url: str, allowed: Sequence[Network]) -> None:
    """Raises `Refused` unless a token may be sent there: over https, or to an address that the deployment allows."""
    parts = urlsplit(url)
    address = literal("127.0.0.1" if parts.hostname == "localhost" else parts.hostname or "")
    plain = parts.scheme == "http" and address is not None and any(address in network for network in allowed)
    if not parts.hostname or not (plain or parts.scheme == "https"):
        raise Refused(
            f"{parts.scheme}://{parts.netloc} must not be asked for: https only, or an address in WAXSEAL_ALLOW_NETWORKS"
        )


def _late(seconds: float) -> Away:
    return Away(f"no whole answer within {seconds:.0f} s")


def _failed(request: Request, error: Exception) -> Away:
    """The error of a request. It names the host only: a path may name a person, and a query may hold state."""
    cause = getattr(error, "os_error", None)
    cause = cause if isinstance(cause, Refused) else error
    text = "" if isinstance(cause, aiohttp.InvalidURL | ValueError) else f": {cause}"
    return Away(f"{urlsplit(request.url).hostname}: {type(cause).__name__}{text}"[:300])
