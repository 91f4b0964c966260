"""A client that uses little CPU: raw HTTP/1.1 on kept-alive connections, in a process of its own.

Requests are made and signed before the clock starts. With rate 0 each connection sends its next request when the last one was
answered. Else requests are due at fixed times, whatever the answers do, and latencies are measured from the due time.
"""

import asyncio
import json
import re
import sys
import time
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Iterator, Sequence
from hmac import digest
from urllib.parse import urlsplit

import uvloop

from ops.bench.load import body, new_run
from ops.bench.measuring.results import percentiles

_LENGTH = re.compile(rb"content-length: (\d+)\r\n")
_END = b"\r\n\r\n"
_DEADLINE = 60.0  # seconds for all answers, beside the time that the rate needs


def webhook(run: str, number: int, content: bytes, secret: str) -> dict[str, str]:
    """The headers of one webhook with a Standard Webhooks signature."""
    name, now = f"{run}-{number}", int(time.time())
    signature = digest(b64decode(secret.removeprefix("whsec_")), f"{name}.{now}.".encode() + content, "sha256")
    return {
        "content-type": "application/json",
        "webhook-id": name,
        "webhook-timestamp": str(now),
        "webhook-signature": f"v1,{b64encode(signature).decode()}",
    }


def _signed(url: str, secret: str, count: int) -> Iterator[bytes]:
    """`count` complete requests, as bytes for the connection."""
    parts, run = urlsplit(url), new_run()
    for number in range(count):
        content = body(number)
        headers = {"host": parts.netloc, "user-agent": "bench"} | webhook(run, number, content, secret)
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers | {"content-length": str(len(content))}).items())
        yield f"POST {parts.path} HTTP/1.1\r\n{lines}\r\n".encode() + content


class _Connection(asyncio.Protocol):
    """One connection; `answered` is called with the status of each answer."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._buffer = b""
        self._due = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def send(self, request: bytes, due: float) -> None:
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(_END)
        if end < 0:
            return
        length = _LENGTH.search(self._buffer, 0, end + 2)
        assert length is not None
        if len(self._buffer) >= end + len(_END) + int(length.group(1)):
            status = int(self._buffer[9:12])
            self._buffer = b""
            self._load.answered(self, status, time.perf_counter() - self._due)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost(exc)


class _Load:
    """Sends all requests over `connections`; at `rate` a second if given, else as fast as they are answered."""

    def __init__(self, requests: Sequence[bytes], rate: float | None) -> None:
        self._requests = deque(requests)
        self._count = len(requests)
        self._rate = rate
        self._idle: deque[_Connection] = deque()
        self._due: deque[float] = deque()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.statuses: dict[int, int] = {}
        self.seconds: list[float] = []

    def start(self, connections: Sequence[_Connection]) -> None:
        self._idle.extend(connections)
        self._began = time.perf_counter()
        if self._rate is None:
            self._due.extend([0.0] * self._count)
            self._send()
        else:
            self._tick()

    def answered(self, connection: _Connection, status: int, seconds: float) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.seconds.append(seconds)
        self._idle.append(connection)
        if len(self.seconds) == self._count:
            self.done.set_result(None)
        elif self._due:
            self._send()

    def lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the ingress hung up"))

    def _send(self) -> None:
        while self._idle and self._due:
            due = self._due.popleft()
            self._idle.popleft().send(self._requests.popleft(), due or time.perf_counter())

    def _tick(self) -> None:
        """Queue the requests that are due, and call this again when the next is."""
        assert self._rate is not None
        sent = self._count - len(self._requests) + len(self._due)
        now = time.perf_counter()
        while sent < self._count and self._began + sent / self._rate <= now:
            self._due.append(self._began + sent / self._rate)
            sent += 1
        self._send()
        if sent < self._count:
            asyncio.get_running_loop().call_later(max(0.0, self._began + sent / self._rate - time.perf_counter()), self._tick)


async def _run(url: str, requests: Sequence[bytes], connections: int, rate: float | None) -> dict[str, object]:
    parts, loop = urlsplit(url), asyncio.get_running_loop()
    host, port = parts.hostname or "", parts.port or 80
    load = _Load(requests, rate)
    opened = [await loop.create_connection(lambda: _Connection(load), host, port) for _ in range(connections)]
    began, used = time.perf_counter(), time.process_time()
    load.start([protocol for _, protocol in opened])
    async with asyncio.timeout(_DEADLINE + (len(requests) / rate if rate else 0)):
        await load.done
    elapsed = time.perf_counter() - began
    for transport, _ in opened:
        transport.close()
    return {
        "per_s": len(requests) / elapsed,
        "statuses": load.statuses,
        "driver_cpu_us": (time.process_time() - used) / len(requests) * 1e6,
        **percentiles(load.seconds),
    }


def main(url: str, secret: str, count: str, connections: str, rate: str) -> None:
    """Run once and print the figures as JSON; rate 0 floods."""
    requests = list(_signed(url, secret, int(count)))
    figures = uvloop.run(_run(url, requests, int(connections), float(rate) or None))
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
