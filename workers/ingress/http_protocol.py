"""HTTP/1.1 on one connection: requests are read within bounds and answered one at a time, in order.

Whatever a client sends, or does not send, may hold only a bounded amount of memory for a bounded time.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

from ops.telemetry import metrics
from workers.ingress.clients import Clients, Line, counted
from workers.ingress.problems import RETRY_AFTER, Answer, Problem, internal
from workers.ingress.request import Budget, Handler, Incoming, fresh_id
from workers.ingress.request_parser import RequestHead, Requests

_PIECE: Final = 16 * 1024  # bytes parsed at once, so that pipelined input waits as bytes, not as requests
_LINGER: Final = 5.0  # seconds for a client to take the last answer
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_log = structlog.get_logger()

Route = Callable[[Incoming], Handler]


class ClientConnection(asyncio.Protocol):
    """One connection. A request that exceeds the bounds is answered, if possible, and the connection closed."""

    def __init__(self, clients: Clients, budget: Budget, route: Route, read_seconds: float, keep_alive_seconds: float) -> None:
        """`read_seconds` from a request's first byte to its last; `route` raises `Problem` for an unknown path."""
        self.address = ""
        self.since = self.deadline = math.inf
        self._clients = clients
        self._budget = budget
        self._route = route
        self._read_seconds = read_seconds
        self._keep_alive_seconds = keep_alive_seconds
        self._line: Line | None = None
        self._transport: asyncio.Transport
        self._requests = Requests(self)
        self._unparsed: bytes | memoryview = b""
        self._began: float | None = None  # when the request that is arriving began
        self._arriving: Incoming | None = None  # the request that is arriving, once its head is complete
        self._current: Incoming | None = None  # the request whose answer is the next
        self._behind: deque[Incoming] = deque()
        self._final_problem: Problem | None = None  # to be answered after all earlier requests
        self._ending = self._closed = self._paused = False
        self._parsing = self._starting = self._reading_paused = False

    # Callbacks of the transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request, no longer than between two requests."""
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.address = counted(peer[0]) if peer else ""
        self.deadline = self._clients.clock() + self._keep_alive_seconds
        if self._clients.enter(self):
            self._enter(self._clients.new)
        else:
            self._refuse(Problem("unavailable", "too many connections", RETRY_AFTER))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whatever it was
        """Drop unfinished requests; messages being published go on, but the client gets no answer."""
        self._closed = True
        self._clients.leave(self)
        for request in (self._arriving, *self._behind):
            if request is not None:
                request.drop()
        self._behind.clear()

    def data_received(self, data: bytes) -> None:
        """Parse and handle the data."""
        if self._final_problem is None:
            self._unparsed = bytes(self._unparsed) + data if self._unparsed else data
            self._go_on()

    def eof_received(self) -> bool:
        """Keep the connection open while answers are due."""
        self._ending = True
        return not self._closed and self._waits()

    def pause_writing(self) -> None:
        """Start no request until the client has read the last answers."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on with pipelined requests."""
        self._paused = False
        self._start_next()
        self._go_on()

    # Callbacks of `Clients`.

    def expire(self) -> None:
        """Close the connection, with a 408 if a request is arriving."""
        if self._closed or self._paused:
            self._abort()
        elif self._began is not None:
            self._refuse(Problem("too_slow", f"the request did not arrive within {self._read_seconds:g} s"))
        else:
            self._close()

    def evict(self) -> None:
        """Close at once, with a 503 if a request is arriving."""
        if self._began is None:
            self._abort()
        else:
            self._refuse(Problem("unavailable", "there are too many connections to wait for a slow one", RETRY_AFTER))

    def end(self, *, at_once: bool = False) -> None:
        """Close when due answers are sent, or at once; do not wait for a request that is still arriving."""
        self._ending = True
        if at_once:
            self._abort()
        elif self._began is not None:
            self._refuse(Problem("unavailable", "this process is ending", RETRY_AFTER))
        elif not self._waits():
            self._close()

    # Callbacks of the parser.

    def on_begin(self) -> None:
        """Start the time limit of the request."""
        self._began = self._clients.clock()

    def on_head(self, head: RequestHead) -> None:
        """Start the request if it is the next."""
        self._arriving = Incoming(head, self._budget, self._answer)
        self._behind.append(self._arriving)
        self._start_next()

    def on_piece(self, piece: bytes) -> None:
        """Add the piece to the body."""
        request = self._arriving
        assert request is not None
        try:
            request.add(piece)
        except Problem as problem:
            if request is not self._current:
                raise
            request.handler.refuse(request, problem)

    def on_whole(self) -> None:
        """Have the request handled if it is the current one."""
        request, self._arriving, self._began = self._arriving, None, None
        assert request is not None
        request.whole = True
        if request is self._current:
            if request.answered:
                self._current = None
                self._start_next()
            else:
                self._handle(request, request.handler.complete)

    # One request at a time.

    def _go_on(self) -> None:
        """Parse received data while no request waits for an earlier one; then close, or set what to wait for."""
        if self._parsing or self._starting:
            return
        self._parsing = True
        while self._unparsed and not self._behind and not self._closed:
            piece, self._unparsed = self._next_piece()
            try:
                self._requests.feed(piece)
            except Problem as problem:
                self._refuse(problem)
        self._parsing = False
        if self._closed:
            return
        waits = self._waits()
        if not waits and self._final_problem is not None:
            self._refuse(self._final_problem)
        elif not waits and self._ending:
            self._close()
        self._wait(waits=waits)

    def _next_piece(self) -> tuple[bytes | memoryview, bytes | memoryview]:
        if len(self._unparsed) <= _PIECE:
            return self._unparsed, b""
        every = memoryview(self._unparsed)
        return every[:_PIECE], every[_PIECE:]

    def _waits(self) -> bool:
        """Whether an answer is due, or will be."""
        return bool(self._behind) or bool(self._unparsed) or (self._current is not None and self._current.whole)

    def _start_next(self) -> None:
        """Start the next request if the earlier ones are answered."""
        if self._starting:
            return
        self._starting = True
        while self._behind and self._current is None and not self._paused and not self._closed:
            self._begin(self._behind.popleft())
        self._starting = False

    def _begin(self, request: Incoming) -> None:
        self._current = request
        try:
            request.handler = self._route(request)
        except Problem as problem:
            request.answer(problem.answer(request.id))
            return
        self._handle(request, request.handler.begin)
        if request.whole and not request.answered:
            self._handle(request, request.handler.complete)
        elif request.expects_continue and not request.size and not request.answered:
            self._transport.write(_CONTINUE)

    def _handle(self, request: Incoming, step: Callable[[Incoming], None]) -> None:
        try:
            step(request)
        except Problem as problem:
            request.handler.refuse(request, problem)
        except Exception as error:  # noqa: BLE001 - whatever it is, the sender is answered
            _log.exception("request_failed", request_id=request.id)
            request.handler.refuse(request, internal(error))

    # Answering.

    def _answer(self, request: Incoming, answer: Answer) -> None:
        if self._closed:
            return
        last = self._ending and not self._behind and not self._unparsed and self._final_problem is None
        close = last or answer.closes or not request.keep_alive
        self._transport.write(answer.wire(request.id, self._clients.date, close=close, head=request.method == "HEAD"))
        self._enter(None)
        if close:
            self._close()
        elif request.whole:
            self._current = None
            if self._behind or self._unparsed or self._began is not None or self._final_problem is not None or self._ending:
                self._start_next()
                self._go_on()
            elif not self._parsing and not self._starting:
                self._wait(waits=False)

    def _refuse(self, problem: Problem) -> None:
        """Answer an invalid or too large request and close, after the answers to earlier requests."""
        if self._arriving is not None and self._arriving is not self._current:
            self._behind.remove(self._arriving)
            self._arriving.drop()
        current, self._began = self._current, None
        if self._behind or (current is not None and current.whole):
            self._final_problem, self._unparsed = problem, b""
            return
        if current is None or not current.answered:
            self._transport.write(problem.answer(made := fresh_id()).wire(made, self._clients.date, close=True))
            rejection = problem.reason if problem.status < 500 else None
            metrics.observe_response("unknown", problem.status, 0.0, self._requests.head, rejection)
        self._close()

    def _close(self) -> None:
        self._closed = True
        self._enter(None)
        self.deadline = self._clients.clock() + _LINGER
        self._transport.close()

    def _abort(self) -> None:
        self._closed = True
        self._transport.abort()

    # Waiting.

    def _wait(self, *, waits: bool) -> None:
        """Set the deadline and the line by what the connection waits for; `waits` is the result of `_waits`."""
        if self._closed:
            return
        now = self._clients.clock()
        if self._paused:
            self._enter(None)
            self.deadline = now + self._read_seconds
        elif self._began is not None:
            self._enter(self._clients.slow if self._arriving is not None else self._line or self._clients.idle)
            self.deadline = self._began + self._read_seconds
        elif waits:
            self._enter(None)
            self.deadline = math.inf
        elif self._line is None:
            self._enter(self._clients.idle)
            self.deadline = now + self._keep_alive_seconds
        pause = bool(self._behind) or self._paused
        if pause != self._reading_paused:
            self._reading_paused = pause
            self._transport.pause_reading() if pause else self._transport.resume_reading()

    def _enter(self, line: Line | None) -> None:
        if line is self._line:
            return
        if self._line is not None:
            self._line.pop(self, None)
        self._line = line
        if line is not None:
            line[self] = None
            self.since = self._clients.clock()
