"""Sends over HTTP, directly or through a deployment's proxy."""

import asyncio
import os
import ssl
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, Final

import aiohttp
from yarl import URL

from pipeline.addresses import literal, refused_host
from pipeline.deliver import retry_after
from pipeline.signing import RANDOM_BYTES, headers, key_of
from schemas.blob import LARGEST_INLINE
from schemas.delivery import Delivery, Receipt, Wish
from schemas.endpoint import Endpoint
from workers.course import COURSE, Course
from workers.dialling import Dialler, Refused, endpoint_name
from workers.http_faults import Fault, fault_of, is_the_proxys, refusal_of
from workers.sending import Terms, unsendable
from workers.tls_contexts import TlsContexts

KEPT: Final = 4 * 1024  # bytes of an answer that are recorded
READ: Final = 64 * 1024  # bytes of an answer that are read; the rest is not waited for
IDLE: Final = 15.0  # seconds until a connection that nobody used is closed
DNS_SECONDS: Final = 10

_WISHES: Final[dict[str, Wish]] = {"disable": "disable", "abort-message": "abort"}


class _Try(Course):
    """What is known of a try while it runs."""

    __slots__ = ("head", "retry_after", "status", "wish")

    def __init__(self, began: float) -> None:
        super().__init__(began)
        self.status: int | None = None
        self.retry_after: str | None = None
        self.wish: Wish | None = None
        self.head = b""


class _Request(aiohttp.ClientRequest):
    """Notes when its connection is there, and where that leads."""

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        course = COURSE.get()
        if course is not None:
            course.ready = self.loop.time()
            course.address = endpoint_name(conn.transport.get_extra_info("peername"))
        return await super().send(conn)


class _Connector(aiohttp.TCPConnector):
    """Shows the proxy none of what an endpoint's `client_cert` and `ca` are for."""

    def __init__(self, proxy: URL | None, **options: Any) -> None:
        super().__init__(**options)
        self._proxied = proxy is not None

    def _get_ssl_context(self, req: aiohttp.ClientRequest) -> ssl.SSLContext | None:
        to_the_proxy = self._proxied and req.proxy is None
        context = super()._get_ssl_context(req)
        return self._ssl if to_the_proxy and context is not None else context  # type: ignore[return-value]


class HttpSender:
    """One session with kept-alive connections, without cookies or redirects.

    Connections are shared by endpoints of one host, but not by endpoints of different `client_cert` or `ca`. Through a proxy
    the look-up of names is the proxy's, and so is the refusal of what they lead to; only addresses are refused here.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._proxy = None if terms.proxy is None else URL(terms.proxy)
        self._contexts = TlsContexts()
        self._loop: asyncio.AbstractEventLoop
        self._session: aiohttp.ClientSession
        self._dialler: Dialler

    def open(self) -> None:
        """Make the session, on the running loop. TLS is verified with the system's trust store."""
        self._loop = asyncio.get_running_loop()
        self._dialler = Dialler(self._terms.allowed if self._proxy is None else None)
        connector = _Connector(
            self._proxy,
            limit=0,  # how many at once is the lanes' business
            ssl=self._contexts.common,
            keepalive_timeout=IDLE,
            ttl_dns_cache=DNS_SECONDS,
            resolver=self._dialler,
            socket_factory=self._dialler.make_socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # one deadline over everything is kept below
            skip_auto_headers=("Accept", "Accept-Encoding"),
            request_class=_Request,
            proxy=self._proxy,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()
        await self._dialler.close()

    async def send(self, endpoint: Endpoint, delivery: Delivery, seconds: float) -> Receipt:
        """POST the body; `seconds` over look-up, connection, TLS, headers and body together."""
        now, tried = datetime.now(UTC), _Try(self._loop.time())
        try:
            keys = [key_of(secret) for secret in endpoint.secrets]
            said = headers(delivery, keys, self._terms.user_agent, now, os.urandom(RANDOM_BYTES))
        except Exception as error:  # noqa: BLE001 - whatever it is, the next try would meet it too
            return unsendable(error)
        if endpoint.headers:
            said = {**endpoint.headers, **said}
        COURSE.set(tried)
        try:
            async with asyncio.timeout(seconds):
                await self._exchange(tried, endpoint, said, delivery.body)
            fault = refusal_of(tried.status, proxied=self._proxy is not None)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what came of this try
            fault = self._fault(error, tried, endpoint, seconds)
        return self._receipt(now, tried, endpoint, *(fault or (None, None)))

    async def _exchange(self, tried: _Try, endpoint: Endpoint, said: dict[str, str], body: bytes) -> None:
        if self._proxy is not None and (why := refused_host(_host(endpoint), self._terms.allowed)):
            raise Refused(f"{_host(endpoint)} must not be asked for: {why}")
        tls = await self._contexts.of(endpoint)
        # In one piece a large body would keep the loop busy, and be there twice.
        data = body if len(body) <= LARGEST_INLINE else BytesIO(body)
        async with self._session.post(endpoint.url, data=data, headers=said, allow_redirects=False, ssl=tls) as response:
            tried.answered = self._loop.time()
            tried.status = response.status
            tried.retry_after = response.headers.get("Retry-After")
            tried.wish = _WISHES.get(response.headers.get("webhook-delivery", "").lower())
            seen = 0
            async for chunk in response.content.iter_any():
                tried.head += chunk[: KEPT - len(tried.head)]
                seen += len(chunk)
                if seen >= READ:
                    response.close()
                    return

    def _fault(self, error: Exception, tried: _Try, endpoint: Endpoint, seconds: float) -> Fault:
        kind, detail = fault_of(error, tried.status, seconds)
        if kind == "url" and (why := refused_host(_host(endpoint), self._terms.allowed)):
            return "refused_address", f"{_host(endpoint)} must not be called: {why}"
        proxys = kind != "refused_address" and self._proxy is not None and is_the_proxys(error, tried, self._proxy)
        return ("proxy", f"the proxy: {detail}") if proxys else (kind, detail)

    def _receipt(self, now: datetime, tried: _Try, endpoint: Endpoint, error: str | None, detail: str | None) -> Receipt:
        ended = self._loop.time()
        named = not tried.reused and literal(self._proxy.raw_host or "" if self._proxy else _host(endpoint)) is None
        answered = error != "proxy"
        return Receipt(
            now,
            ended - tried.began,
            tried.status,
            error,
            detail,
            retry_after(tried.retry_after, datetime.now(UTC)) if error and answered else None,
            tried.head,
            tried.reused,
            tried.wish if answered else None,
            tried.address,
            *tried.phases(ended, named=named),
        )


def _host(endpoint: Endpoint) -> str:
    """The host as it is asked for, which is not always as it is written; nothing when that is no URL."""
    try:
        return URL(endpoint.url).raw_host or ""
    except ValueError:
        return ""
