"""uvicorn's HTTP protocol with the bounds it lacks: on a head's size, on the time a request takes to arrive, on connections.

Nothing that a client sends, or does not send, may cost more than a little memory for a little while.
"""

import asyncio
import secrets
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ops import metrics
from workers.problems import RETRY_AFTER, Problem

MAX_HEAD: Final = 32 * 1024  # bytes of all headers, or of anything else without progress
MAX_HEADERS: Final = 100
MAX_CONNECTIONS: Final = 2000


class GuardedProtocol(HttpToolsProtocol):
    """One connection. A request that breaks the bounds is answered, if it can be, and the connection closed."""

    read_seconds = 20.0  # from a request's first byte to its last

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, not longer than between two."""
        super().connection_made(transport)
        self._reading = self._in_body = False
        self._deadline: asyncio.TimerHandle | None = None
        self._head = self._stale = 0
        self._advanced = False
        self._fault: Problem | None = None
        self._wait_idle()
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(Problem("unavailable", "too many connections", RETRY_AFTER))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._stop_clock()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and see to it that something comes of it."""
        self._advanced = False
        super().data_received(data)
        if self.transport.is_closing():
            return
        self._stale = 0 if self._advanced else self._stale + len(data)
        if self._stale > MAX_HEAD:
            self._refuse(Problem("head_too_large", f"more than {MAX_HEAD} bytes of headers"))
        elif self._reading:
            if self._deadline is None:
                self._deadline = self.loop.call_later(self.read_seconds, self._too_slow)
        elif self.cycle is None or self.cycle.response_complete:
            self._wait_idle()

    def shutdown(self) -> None:
        """Wait for the answer that is under way, but not for a request that is still to come."""
        if self._reading:
            self._refuse(Problem("unavailable", "this process is ending", RETRY_AFTER))
        else:
            super().shutdown()

    # What the parser finds. An error raised here ends in `send_400_response`.

    def on_message_begin(self) -> None:
        """Start a request."""
        super().on_message_begin()
        self._reading = True
        self._head = 0

    def on_url(self, url: bytes) -> None:
        """Count the URL as part of the head."""
        self._grow(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header, or a trailer."""
        self._grow(len(name) + len(value))
        if len(self.headers) >= MAX_HEADERS:
            self._fault = Problem("head_too_large", f"more than {MAX_HEADERS} headers")
            raise self._fault
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request over."""
        self._advanced = self._in_body = True
        super().on_headers_complete()
        if self.parser.should_upgrade():  # the parser drops what follows such a request, so the sender must not wait for it
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Hand a piece of the body over."""
        self._advanced = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request: what follows is the next one's."""
        self._advanced = True
        self._reading = self._in_body = False
        self._stop_clock()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words are not used
        """Answer what is no HTTP, or too much of it."""
        self._refuse(self._fault or Problem("malformed", "this is not an HTTP request"))

    def _grow(self, size: int) -> None:
        self._head += size
        if self._head > MAX_HEAD:
            self._fault = Problem("head_too_large", f"more than {MAX_HEAD} bytes of headers")
            raise self._fault

    def _too_slow(self) -> None:
        self._deadline = None
        self._refuse(Problem("too_slow", f"the request did not arrive within {self.read_seconds:g} s"))

    def _refuse(self, problem: Problem) -> None:
        """Answer and close. Says nothing while an earlier request waits for its answer, or this would be taken for it."""
        cycle = self.cycle
        waits = cycle is not None and (cycle.response_started if self._in_body else not cycle.response_complete)
        if not waits and not self.pipeline:
            self.transport.write(problem.wire(secrets.token_hex(16)))
            metrics.observe_response(
                "unknown", problem.status, 0.0, self._head, problem.reason if problem.status < 500 else None
            )
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        self._stop_clock()
        self.transport.close()

    def _wait_idle(self) -> None:
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def make_protocol(read_seconds: float) -> type[Any]:
    """The protocol with another limit on the time that a request may take to arrive."""
    return type("GuardedProtocol", (GuardedProtocol,), {"read_seconds": read_seconds})
