"""An HTTP endpoint that behaves as the path says, and records its requests."""

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from support.net.loop_thread import LoopThread

KEEP_ALIVE = b"HTTP/1.1 %d x\r\n%bContent-Length: %d\r\n\r\n%b"


@dataclass
class Request:
    """One request, as received."""

    path: str
    headers: dict[str, str]
    body: bytes
    connection: int  # the number of the sink's connection that it came over
    at: float = field(default_factory=time.monotonic)  # when it was complete


@dataclass
class Sink:
    """Serves from a thread of its own, from `start` to `stop`."""

    requests: list[Request] = field(default_factory=list)
    port: int = 0
    connections: int = 0
    ration: int = 0  # the number of the last request that `/rationed` answers

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def ids(self) -> Counter[str]:
        """How often each webhook-id was received."""
        return Counter(request.headers["webhook-id"] for request in self.requests)

    def start(self, tls: ssl.SSLContext | None = None) -> None:
        self.released = asyncio.Event()
        self.thread = LoopThread()
        self.server = self.thread.do(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls))
        self.port = self.server.sockets[0].getsockname()[1]

    def release(self) -> None:
        """Answers the requests that hang."""
        self.thread.loop.call_soon_threadsafe(self.released.set)

    def stop(self) -> None:
        self.thread.stop(self.server)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
                body = await reader.readexactly(int(headers["content-length"]))
                path = head[0].split(" ")[1]
                self.requests.append(Request(path, headers, body, number))
                await self._answer(path, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> None:
        what, _, argument = path.strip("/").partition("/")
        if what.isdigit():
            say(writer, int(what), argument.encode())
        else:
            await ANSWERS[what](self, writer)


def say(writer: asyncio.StreamWriter, status: int, body: bytes = b"", headers: bytes = b"") -> None:
    writer.write(KEEP_ALIVE % (status, headers, len(body), body))


async def busy(_sink: Sink, writer: asyncio.StreamWriter) -> None:
    say(writer, 429, b"", b"Retry-After: 120\r\n")


async def busy_until(_sink: Sink, writer: asyncio.StreamWriter) -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=300), usegmt=True)
    say(writer, 503, b"", f"Retry-After: {until}\r\n".encode())


async def elsewhere(_sink: Sink, writer: asyncio.StreamWriter) -> None:
    say(writer, 302, b"", b"Location: /200\r\n")


async def hostile(_sink: Sink, writer: asyncio.StreamWriter) -> None:
    say(writer, 500, b"<script>alert(1)</script><img src=x onerror=alert(1)>")


async def refusing(sink: Sink, writer: asyncio.StreamWriter) -> None:
    say(writer, 200 if sink.released.is_set() else 500)


async def soon(_sink: Sink, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.02)
    say(writer, 200)


async def hang(sink: Sink, writer: asyncio.StreamWriter) -> None:
    await sink.released.wait()
    say(writer, 200)


async def rationed(sink: Sink, writer: asyncio.StreamWriter) -> None:
    """Answers up to the request of this number, and hangs from then on, until more are allowed."""
    if len(sink.requests) > sink.ration:
        await sink.released.wait()
    say(writer, 200)


async def slow_body(sink: Sink, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    await sink.released.wait()


async def cut_body(_sink: Sink, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    writer.close()


async def endless(sink: Sink, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not sink.released.is_set():
        writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        await writer.drain()


async def reset(_sink: Sink, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def closed(_sink: Sink, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def garbage(_sink: Sink, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")


async def cookie(_sink: Sink, writer: asyncio.StreamWriter) -> None:
    say(writer, 200, b"", b"Set-Cookie: a=b\r\n")


async def once_closed(sink: Sink, writer: asyncio.StreamWriter) -> None:
    """Answers, and closes the connection although it promised to keep it."""
    say(writer, 200)
    await writer.drain()
    writer.close()


ANSWERS: dict[str, Callable[[Sink, asyncio.StreamWriter], Awaitable[None]]] = {
    each.__name__: each
    for each in (
        busy,
        busy_until,
        elsewhere,
        hang,
        hostile,
        refusing,
        rationed,
        soon,
        slow_body,
        cut_body,
        endless,
        reset,
        closed,
        garbage,
        cookie,
        once_closed,
    )
}
