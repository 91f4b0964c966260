"""An endpoint that uses little CPU: a raw HTTP/1.1 server in its own process, which reads from a body when it was due.

POST /well/N answers at once, /failing/N answers 500, /hanging/N never answers. GET gives how many requests there were, how many
different events they brought, and the latencies since the last GET, in seconds by kind; GET /anew does so and forgets the
events. Times are of the monotonic clock, which all processes share.
"""

import asyncio
import json
import re
import sys
import time
from collections import defaultdict

import uvloop

DUE = b'"due": '
_ID = b"webhook-id: "
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_END = b"\r\n\r\n"
_WELL = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_FAILING = b"HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n"
_FIGURES = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"


class _Seen:
    """What all connections have received."""

    def __init__(self) -> None:
        self.requests = 0
        self.events: set[bytes] = set()  # their ids
        self.latencies: defaultdict[str, list[float]] = defaultdict(list)

    def note(self, kind: str, request: bytes) -> None:
        self.requests += 1
        named = request.find(_ID)
        if named >= 0:
            named += len(_ID)
            self.events.add(request[named : request.index(b"\r", named)])
        at = request.find(DUE)
        if at >= 0:
            due = int(request[at + len(DUE) : request.index(b",", at)])
            self.latencies[kind].append((time.monotonic_ns() - due) / 1e9)

    def told(self, *, anew: bool) -> bytes:
        figures = {"requests": self.requests, "events": len(self.events), "latencies": self.latencies}
        document = json.dumps(figures).encode()
        self.latencies.clear()
        if anew:
            self.events.clear()
        return _FIGURES % (len(document), document)


class _Connection(asyncio.Protocol):
    """One connection; requests may arrive in pieces, but are not pipelined."""

    def __init__(self, seen: _Seen) -> None:
        self._seen = seen
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(_END)
        if end < 0:
            return
        length = _LENGTH.search(self._buffer, 0, end)
        if self._buffer.startswith(b"GET "):
            self._transport.write(self._seen.told(anew=self._buffer.startswith(b"GET /anew ")))
        elif length is None or len(self._buffer) < end + len(_END) + int(length[1]):
            return
        else:
            self._answer(self._buffer[6 : self._buffer.index(b"/", 6)].decode())
        self._buffer = b""

    def _answer(self, kind: str) -> None:
        self._seen.note(kind, self._buffer)
        if kind != "hanging":
            self._transport.write(_FAILING if kind == "failing" else _WELL)


async def _serve(port: int) -> None:
    seen = _Seen()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(seen), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
