"""The HTTP server: listens on one event loop, and answers pending requests before it stops."""

import asyncio
import signal
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import uvloop

from workers.ingress.clients import MOST, Clients
from workers.ingress.http_protocol import ClientConnection, Route
from workers.ingress.request import Budget

READ_SECONDS: Final = 20.0  # for a request to arrive completely
KEEP_ALIVE_SECONDS: Final = 75.0  # between two requests; longer than load balancers wait, so that they close first

_BACKLOG: Final = 2048  # connections that wait to be accepted
_SEND_BUFFER: Final = 64 * 1024  # bytes of answers that the kernel buffers for a connection
_LOOK: Final = 0.02  # seconds between two checks whether all connections are closed


@dataclass(slots=True)
class ClientBounds:
    """Limits for clients; `grace`: seconds for the answers that are due when the server stops."""

    per_address: int  # connections
    grace: float
    read_seconds: float = READ_SECONDS
    keep_alive_seconds: float = KEEP_ALIVE_SECONDS
    most: int = MOST  # connections in all


class Listener:
    """Serves `route` from `run` until `stop`."""

    def __init__(self, route: Route, host: str, port: int, bounds: ClientBounds) -> None:
        """Port 0 means any free port; the attribute `port` has it once the server listens."""
        self.bounds = bounds
        self.clients = Clients(bounds.per_address, bounds.most)
        self.port: int | None = None
        self._route = route
        self._budget = Budget()
        self._address = host, port
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, before: Callable[[], None], after: Callable[[], Awaitable[None]]) -> None:
        """Serve until stopped, or until SIGTERM or SIGINT in the main thread. Raises `OSError` when it cannot listen.

        `before` and `after` are called on the event loop.
        """
        uvloop.run(self._serve(before, after))

    def stop(self) -> None:
        """Make `run` return. Safe from any thread."""
        if self._loop is None:
            self._stopping.set()
        else:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._stopping.set)

    async def _serve(self, before: Callable[[], None], after: Callable[[], Awaitable[None]]) -> None:
        loop = self._loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stopping.set)
        before()
        try:
            server = await loop.create_server(self._connection, *self._address, backlog=_BACKLOG)
            for listening in server.sockets:  # less than the default: the kernel holds unread answers for minutes
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            self.clients.sweep()
            self.port = server.sockets[0].getsockname()[1]
            await self._stopping.wait()
            server.close()
            await self._emptied()
            self.clients.stop()
        finally:
            await after()

    def _connection(self) -> ClientConnection:
        bounds = self.bounds
        return ClientConnection(self.clients, self._budget, self._route, bounds.read_seconds, bounds.keep_alive_seconds)

    async def _emptied(self) -> None:
        """Close all connections: idle ones at once, the others when they are answered, or after `grace` seconds."""
        for client in self.clients:
            client.end()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.bounds.grace):
                while len(self.clients):  # noqa: ASYNC110 - needed once, at the end
                    await asyncio.sleep(_LOOK)
        for client in self.clients:
            client.end(at_once=True)
