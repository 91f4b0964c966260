"""Sends over HTTP. Every failure is a receipt: what comes of it is for the pipeline to say."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import aiohttp

from pipeline.deliver import UNSENDABLE, retry_after
from schemas.delivery import Receipt
from schemas.endpoint import Endpoint

KEPT: Final = 4 * 1024  # bytes of an answer that are recorded
READ: Final = 64 * 1024  # bytes of an answer that are read; the rest is not waited for
IDLE: Final = 15.0  # seconds until a connection that nobody used is closed
DNS_SECONDS: Final = 10

#: (endpoint, headers, body, seconds it may take altogether) -> what came of it. Raises nothing but CancelledError.
Send = Callable[[Endpoint, Mapping[str, str], bytes, float], Awaitable[Receipt]]

#: The class of a failure, by the first of these that it is an instance of.
_CLASSES: Final = (
    (TimeoutError, "timeout"),
    (aiohttp.ClientConnectorDNSError, "dns"),
    (aiohttp.ClientSSLError, "tls"),
    (aiohttp.ServerFingerprintMismatch, "tls"),
    (aiohttp.InvalidURL, "url"),
    (aiohttp.ClientConnectorError, "connect"),
    (aiohttp.ClientConnectionError, "reset"),
    (aiohttp.ClientPayloadError, "reset"),
    (OSError, "reset"),
    (aiohttp.ClientResponseError, "protocol"),
    (ValueError, UNSENDABLE),
)


class _Try:
    """What is known of a try while it runs."""

    __slots__ = ("fresh", "head", "retry_after", "status")

    def __init__(self) -> None:
        self.fresh = False
        self.status: int | None = None
        self.retry_after: str | None = None
        self.head = b""


class HttpSender:
    """One session with kept-alive connections, without cookies or redirects, from `open` to `close` on one event loop."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession

    def open(self) -> None:
        """Make the session, on the running loop. TLS is verified with the system's trust store."""
        connector = aiohttp.TCPConnector(
            limit=0,  # how many at once is the lanes' business
            ssl=ssl.create_default_context(),
            keepalive_timeout=IDLE,
            ttl_dns_cache=DNS_SECONDS,
        )
        noted = aiohttp.TraceConfig()
        noted.on_connection_create_end.append(_note_fresh)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # one deadline over everything is kept below
            skip_auto_headers=("Accept", "Accept-Encoding"),
            trace_configs=[noted],
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def send(self, endpoint: Endpoint, headers: Mapping[str, str], body: bytes, seconds: float) -> Receipt:
        """POST `body`; `seconds` over look-up, connection, TLS, headers and body together."""
        started_at, began = datetime.now(UTC), asyncio.get_running_loop().time()
        tried = _Try()
        try:
            async with asyncio.timeout(seconds):
                await self._exchange(tried, endpoint.url, headers, body)
            fault = _refusal(tried.status)
        except Exception as cause:  # noqa: BLE001 - whatever it is, it is what came of this try
            fault = _fault(cause, tried.status, seconds)
        error, detail = fault or (None, None)
        return Receipt(
            started_at,
            asyncio.get_running_loop().time() - began,
            tried.status,
            error,
            detail,
            retry_after(tried.retry_after, datetime.now(UTC)) if fault else None,
            tried.head,
            None if tried.status is None else not tried.fresh,
        )

    async def _exchange(self, tried: _Try, url: str, headers: Mapping[str, str], body: bytes) -> None:
        async with self._session.post(
            url, data=body, headers=headers, allow_redirects=False, trace_request_ctx=tried
        ) as response:
            tried.status = response.status
            tried.retry_after = response.headers.get("Retry-After")
            seen = 0
            async for chunk in response.content.iter_any():
                tried.head += chunk[: KEPT - len(tried.head)]
                seen += len(chunk)
                if seen >= READ:
                    response.close()
                    return


async def _note_fresh(_session: aiohttp.ClientSession, context: object, _parameters: object) -> None:
    context.trace_request_ctx.fresh = True  # type: ignore[attr-defined]


def _refusal(status: int | None) -> tuple[str, str] | None:
    if status is None or not 200 <= status < 400:
        return "status", f"answered {status}"
    return ("redirect", f"answered {status}; redirects are not followed") if status >= 300 else None


def _fault(error: Exception, status: int | None, seconds: float) -> tuple[str, str]:
    kind = next((name for class_, name in _CLASSES if isinstance(error, class_)), "internal")
    detail = f"no whole answer within {seconds:g} s" if kind == "timeout" else _detail(error)
    return kind, detail if status is None else f"answered {status}, but its body did not end: {detail}"


def _detail(error: Exception) -> str:
    """The error's text, bounded, without the URL, which may hold a password."""
    text = "" if isinstance(error, aiohttp.InvalidURL) else getattr(error, "message", None) or str(error)
    return f"{type(error).__name__}: {text}"[:500]
