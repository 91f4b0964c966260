"""A server that runs a script on each connection, byte by byte."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from support.net.loop_thread import LoopThread

Script = Callable[["Wire", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Wire:
    """Where the server is, and what it received: heads and bodies of requests, and the number of connections."""

    script: Script
    port: int = 0
    connections: int = 0
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    notes: list[object] = field(default_factory=list)

    def url(self, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}/hooks"

    async def request(self, reader: asyncio.StreamReader) -> str:
        """Reads one request; returns its head."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        lines = head.lower().split("\r\n")
        length = next((int(line.partition(":")[2]) for line in lines if line.startswith("content-length:")), 0)
        self.bodies.append(await reader.readexactly(length))
        return head

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError, asyncio.LimitOverrunError):
            await self.script(self, reader, writer)
        writer.close()


@contextmanager
def wire(script: Script, tls: ssl.SSLContext | None = None) -> Iterator[Wire]:
    """Runs the server on a port of the loopback address, in its own thread, until the block ends."""
    made = Wire(script)
    thread = LoopThread()
    server = thread.do(asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls))
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        thread.stop(server)


def answers(raw: bytes) -> Script:
    """Answers each request with these bytes."""

    async def script(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await wire.request(reader)
            writer.write(raw)
            await writer.drain()

    return script
