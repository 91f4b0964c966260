"""The HTTP connections of deliveries: made to permitted addresses, with TLS or through a proxy, and kept alive for a while."""

import asyncio
import base64
import re
import ssl
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address
from time import monotonic
from typing import Final

from aiohappyeyeballs import start_connection
from yarl import URL

from workers.net.dial import AddressInfo, Dialler
from workers.net.timings import AttemptTimes
from workers.transports.http1 import TICK, HttpConnection

IDLE: Final = 15.0  # seconds until an unused connection is closed
SWEEP: Final = 5.0  # seconds between two checks for those
NAMES_SECONDS: Final = 10.0  # for which the addresses of a name are cached
MOST_NAMES: Final = 4096
STAGGER: Final = 0.25  # seconds until the next address is tried in parallel (RFC 8305 §5)

_PORTS: Final = {"http": 80, "https": 443}
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


class NotAUrl(ValueError):
    """The URL is unusable. Its text is not in the message, because it may hold a password."""


class NotConnected(OSError):
    """No address could be connected to."""


class NoTunnel(OSError):
    """The proxy did not make a tunnel."""


@dataclass(frozen=True, slots=True)
class Destination:
    """The parts of a URL. Private ones are in neither its repr nor the messages of errors."""

    secure: bool
    host: str  # as it is looked up
    port: int
    authority: str  # as in `Host` and CONNECT: without a zone or the trailing dot
    target: str  # path and query
    authorization: str | None  # of the user in the URL (RFC 7617)

    def __repr__(self) -> str:
        return f"Destination({self.authority})"


@lru_cache(4096)
def destination(url: str) -> Destination:
    """Parse a URL. Raises `NotAUrl`."""
    try:
        parsed = URL(url)
        host, name = _host_of(parsed.raw_host or "")
        port = parsed.port
    except ValueError:
        port = None
    if not port or parsed.scheme not in _PORTS:
        raise NotAUrl("not a URL that can be called")
    authority = name if port == _PORTS[parsed.scheme] else f"{name}:{port}"
    return Destination(parsed.scheme == "https", host, port, authority, parsed.raw_path_qs, _basic(parsed))


def _host_of(raw: str) -> tuple[str, str]:
    """A URL's host as it is looked up, and as it is sent to others (RFC 6874 §1). Raises ValueError when it is invalid."""
    name, mark, zone = raw.partition("%")
    if ":" in name:
        zone = zone.removeprefix("25")
        if bool(mark) != bool(_NAME.fullmatch(zone)):
            raise ValueError("not a zone")
        return f"{IPv6Address(name)}{mark}{zone}", f"[{IPv6Address(name)}]"
    if not _NAME.fullmatch(raw) or not raw.strip("."):
        raise ValueError("not a name")
    return raw, raw.rstrip(".")


def _basic(url: URL) -> str | None:
    if url.user is None and url.password is None:
        return None
    pair = f"{url.user or ''}:{url.password or ''}".encode()
    return "Basic " + base64.b64encode(pair).decode()


class Connections:
    """A pool, from construction to `close` on one event loop. Each connection serves one request at a time; no limit on number.

    Endpoints of one host share connections, but not endpoints with different TLS contexts.
    """

    def __init__(self, dialler: Dialler, proxy: Destination | None, common: ssl.SSLContext) -> None:
        """`common` is the TLS context for the proxy itself, which must not see an endpoint's client certificate."""
        self._loop = asyncio.get_running_loop()
        self._dialler = dialler
        self._proxy = proxy
        self._common = common
        self._idle: defaultdict[Hashable, list[tuple[float, HttpConnection]]] = defaultdict(list)
        self._names: dict[tuple[str, int], tuple[float, Sequence[AddressInfo]]] = {}
        self._looking: dict[tuple[str, int], asyncio.Task[list[AddressInfo]]] = {}
        self._sweeper = self._loop.call_later(SWEEP, self._sweep)

    def kept(self, to: Destination, tls: ssl.SSLContext, times: AttemptTimes) -> HttpConnection | None:
        """An idle connection, if there is one."""
        idle = self._idle.get(self._key(to, tls))
        while idle:
            _since, connection = idle.pop()
            if not connection.closed:
                times.reach(connection.peer, monotonic())
                return connection
        return None

    async def connect(self, to: Destination, tls: ssl.SSLContext, times: AttemptTimes, deadline: float) -> HttpConnection:
        """A new connection.

        Raises what `Dialler.find` does, SSLError, `NotConnected`, `NoTunnel`, and TimeoutError when the monotonic clock
        shows `deadline`.
        """
        times.with_proxy = self._proxy is not None
        async with asyncio.timeout(deadline - monotonic() + TICK):
            connection = await self._open(to, tls, times, deadline)
        times.with_proxy = False
        times.reach(connection.peer, monotonic())
        return connection

    def give_back(self, to: Destination, tls: ssl.SSLContext, connection: HttpConnection) -> None:
        """Keep the connection for the next request if it is reusable, else close it."""
        if connection.reusable and not connection.closed:
            self._idle[self._key(to, tls)].append((self._loop.time(), connection))
        else:
            connection.close()

    def forget_names(self) -> None:
        """Clear the cache of names."""
        self._names.clear()

    async def close(self) -> None:
        """Close idle connections, and cancel look-ups."""
        self._sweeper.cancel()
        for idle in self._idle.values():
            for _since, connection in idle:
                connection.close()
        self._idle.clear()
        for looking in list(self._looking.values()):
            looking.cancel()
        await asyncio.sleep(0)  # the transports close in the loop's next iteration

    def _key(self, to: Destination, tls: ssl.SSLContext) -> Hashable:
        if to.secure:
            return to.host, to.port, tls
        return (to.host, to.port) if self._proxy is None else None

    async def _open(self, to: Destination, tls: ssl.SSLContext, times: AttemptTimes, deadline: float) -> HttpConnection:
        if self._proxy is None:
            return await self._connect(to, tls)
        connection = await self._connect(self._proxy, self._common)
        if to.secure:
            try:
                await self._tunnel(connection, self._proxy, to, deadline)
                times.with_proxy = False
                await connection.secure(tls, _server_name(to.host))
            except BaseException:
                connection.close()
                raise
        return connection

    async def _connect(self, to: Destination, tls: ssl.SSLContext) -> HttpConnection:
        addresses = await self._find(to.host, to.port)
        context, name = (tls, _server_name(to.host)) if to.secure else (None, None)
        try:
            sock = await start_connection(
                addresses,
                happy_eyeballs_delay=STAGGER,
                interleave=1,
                loop=self._loop,
                socket_factory=self._dialler.make_socket,
            )
            _, connection = await self._loop.create_connection(HttpConnection, sock=sock, ssl=context, server_hostname=name)
        except ssl.SSLError:
            raise
        except OSError as error:
            raise NotConnected(str(error)) from error
        return connection

    async def _tunnel(self, connection: HttpConnection, proxy: Destination, to: Destination, deadline: float) -> None:
        asked = f"{to.authority if to.port != _PORTS['https'] else f'{to.authority}:{to.port}'}"
        lines = [f"CONNECT {asked} HTTP/1.1", f"host: {asked}"]
        if proxy.authorization:
            lines.append(f"proxy-authorization: {proxy.authorization}")
        status = await connection.tunnel(("\r\n".join(lines) + "\r\n\r\n").encode("ascii"), deadline)
        if not 200 <= status < 300:
            raise NoTunnel(f"answered {status}")

    async def _find(self, host: str, port: int) -> Sequence[AddressInfo]:
        """The result of `Dialler.find`, from the cache if fresh; concurrent callers share one look-up."""
        key = host, port
        until, known = self._names.get(key, (0.0, ()))
        if self._loop.time() < until:
            return known
        looking = self._looking.get(key)
        if looking is None:
            looking = self._looking[key] = self._loop.create_task(self._dialler.find(host, port))
            looking.add_done_callback(lambda done: self._found(key, done))
        return await asyncio.shield(looking)

    def _found(self, key: tuple[str, int], done: "asyncio.Task[list[AddressInfo]]") -> None:
        self._looking.pop(key, None)
        if not done.cancelled() and done.exception() is None:
            if len(self._names) >= MOST_NAMES:
                self._names.clear()
            self._names[key] = self._loop.time() + NAMES_SECONDS, done.result()

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(SWEEP, self._sweep)
        since = self._loop.time() - IDLE
        for key, idle in list(self._idle.items()):
            for used, connection in idle:
                if used < since:
                    connection.close()
            self._idle[key] = [(used, connection) for used, connection in idle if not connection.closed]
            if not self._idle[key]:
                del self._idle[key]


def _server_name(host: str) -> str:
    return host.partition("%")[0].rstrip(".")
