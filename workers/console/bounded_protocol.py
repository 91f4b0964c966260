"""HTTP of the console, with bounds that uvicorn's protocol lacks: the size of a request, and how long it takes to arrive."""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from workers.console.middleware import MOST_BODY

READ_SECONDS: Final = 20.0  # for a whole request, or for the first byte of one
MOST_HEAD: Final = 64 * 1024  # bytes of a request's line and headers
#: Bytes of a whole request. The framing of a body in chunks may be as long as the body; trailers are part of it.
MOST_REQUEST: Final = MOST_HEAD + 2 * MOST_BODY


class BoundedProtocol(HttpToolsProtocol):
    """One connection. It ends when a request is too large or arrives too slowly: with 431, 413 or 408.

    A request that has arrived may take any time to answer; the time in which the application does not read does not count.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._received = 0  # bytes of the request that is arriving
        self._in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        """Wait for a request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what has come, and refuse a request that has become too large."""
        if self._deadline is None:
            self._wait()
        self._received += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head and self._received > MOST_HEAD:
            self._refuse("431 Request Header Fields Too Large", f"a request's headers have at most {MOST_HEAD} bytes")
        elif self._received > MOST_REQUEST:
            self._refuse("413 Content Too Large", f"a request has at most {MOST_REQUEST} bytes")

    def on_message_begin(self) -> None:
        """Called by the parser at the first byte of a request, which may have come with the end of the one before."""
        if self._deadline is None:
            self._wait()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Called by the parser after the last header."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Called by the parser after the last byte of a request."""
        self._stop_waiting()
        self._received, self._in_head = 0, True
        super().on_message_complete()

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(READ_SECONDS, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        if self.flow.read_paused or self._answering():
            self._wait()
        elif not self.transport.is_closing():
            self._refuse("408 Request Timeout", f"the request did not arrive within {READ_SECONDS:g} s")

    def _answering(self) -> bool:
        """Whether a request that has arrived is being answered; the next one may have begun to arrive behind it."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body

    def _refuse(self, status: str, why: str) -> None:
        """Answer in place of the application, unless it has begun to, and end the connection."""
        self._stop_waiting()
        begun = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not begun:
            head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(why)}\r\nConnection: close\r\n\r\n"
            self.transport.write((head + why).encode("ascii"))
        self.transport.close()
