"""HTTP/1.1 on one connection: requests are read within bounds and answered one after the other, in their order.

Nothing that a client sends, or does not send, may cost more than a little memory for a little while.
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

_PIECE: Final = 16 * 1024  # bytes that are parsed at once: what is sent ahead of answers waits as bytes, not as requests
_LINGER: Final = 5.0  # seconds for a client to take the last answer
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_log = structlog.get_logger()

Route = Callable[[Incoming], Handler]


class ClientConnection(asyncio.Protocol):
    """One connection. A request that breaks the bounds is answered, if it can be, and the connection closed."""

    def __init__(self, clients: Clients, budget: Budget, route: Route, read_seconds: float, keep_alive_seconds: float) -> None:
        """`read_seconds` from a request's first byte to its last; `route` raises `Problem` for what leads nowhere."""
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
        self._began: float | None = None  # when the request began that is on its way
        self._arriving: Incoming | None = None  # the same, when its body is on its way
        self._current: Incoming | None = None  # whose answer is the next
        self._behind: deque[Incoming] = deque()
        self._last_words: Problem | None = None  # to be said when all that came before is answered
        self._ending = self._closed = self._paused = False
        self._parsing = self._turning = self._deaf = False

    # What the transport tells.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, not longer than between two."""
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.address = counted(peer[0]) if peer else ""
        self.deadline = self._clients.clock() + self._keep_alive_seconds
        if self._clients.enter(self):
            self._stand(self._clients.new)
        else:
            self._refuse(Problem("unavailable", "too many connections", RETRY_AFTER))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whatever it was
        """Forget what was begun; what is on its way to the broker goes on, and nobody is told."""
        self._closed = True
        self._clients.leave(self)
        for request in (self._arriving, *self._behind):
            if request is not None:
                request.drop()
        self._behind.clear()

    def data_received(self, data: bytes) -> None:
        """Parse, and see to it that something comes of it."""
        if self._last_words is None:
            self._unparsed = bytes(self._unparsed) + data if self._unparsed else data
            self._go_on()

    def eof_received(self) -> bool:
        """Who has said everything still gets the answers that are due."""
        self._ending = True
        return not self._closed and self._waits()

    def pause_writing(self) -> None:
        """Answer no more before the last answers have been taken."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on with what was sent ahead."""
        self._paused = False
        self._turn()
        self._go_on()

    # What the keeper of the clients tells.

    def expire(self) -> None:
        """Give up what takes too long."""
        if self._closed or self._paused:
            self._abort()
        elif self._began is not None:
            self._refuse(Problem("too_slow", f"the request did not arrive within {self._read_seconds:g} s"))
        else:
            self._close()

    def evict(self) -> None:
        """Go at once, with a word for who was in the middle of something."""
        if self._began is None:
            self._abort()
        else:
            self._refuse(Problem("unavailable", "there are too many connections to wait for a slow one", RETRY_AFTER))

    def end(self, *, at_once: bool = False) -> None:
        """Wait for the answers that are due, unless it is to end at once, but not for a request that is still to come."""
        self._ending = True
        if at_once:
            self._abort()
        elif self._began is not None:
            self._refuse(Problem("unavailable", "this process is ending", RETRY_AFTER))
        elif not self._waits():
            self._close()

    # What the parser finds.

    def on_begin(self) -> None:
        """Count the time that the request takes."""
        self._began = self._clients.clock()

    def on_head(self, head: RequestHead) -> None:
        """Begin with it if it is its turn."""
        self._arriving = Incoming(head, self._budget, self._answer)
        self._behind.append(self._arriving)
        self._turn()

    def on_piece(self, piece: bytes) -> None:
        """Add it to the body."""
        request = self._arriving
        assert request is not None
        try:
            request.add(piece)
        except Problem as problem:
            if request is not self._current:
                raise
            request.handler.refuse(request, problem)

    def on_whole(self) -> None:
        """Have the request handled if it is its turn."""
        request, self._arriving, self._began = self._arriving, None, None
        assert request is not None
        request.whole = True
        if request is self._current:
            if request.answered:
                self._current = None
                self._turn()
            else:
                self._handle(request, request.handler.complete)

    # In turn.

    def _go_on(self) -> None:
        """Parse what has come, as long as no request waits for those before it; then see what there is to wait for."""
        if self._parsing or self._turning:
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
        if not waits and self._last_words is not None:
            self._refuse(self._last_words)
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

    def _turn(self) -> None:
        """Begin with the next request, when those before it are answered."""
        if self._turning:
            return
        self._turning = True
        while self._behind and self._current is None and not self._paused and not self._closed:
            self._begin(self._behind.popleft())
        self._turning = False

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
        elif request.patient and not request.size and not request.answered:
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
        last = self._ending and not self._behind and not self._unparsed and self._last_words is None
        close = last or answer.closes or not request.keep_alive
        self._transport.write(answer.wire(request.id, self._clients.date, close=close, head=request.method == "HEAD"))
        self._stand(None)
        if close:
            self._close()
        elif request.whole:
            self._current = None
            if self._behind or self._unparsed or self._began is not None or self._last_words is not None or self._ending:
                self._turn()
                self._go_on()
            elif not self._parsing and not self._turning:
                self._wait(waits=False)

    def _refuse(self, problem: Problem) -> None:
        """Answer what is no request, or too much of one, and close; when earlier ones wait for answers, after those."""
        if self._arriving is not None and self._arriving is not self._current:
            self._behind.remove(self._arriving)
            self._arriving.drop()
        current, self._began = self._current, None
        if self._behind or (current is not None and current.whole):
            self._last_words, self._unparsed = problem, b""
            return
        if current is None or not current.answered:
            self._transport.write(problem.answer(made := fresh_id()).wire(made, self._clients.date, close=True))
            rejection = problem.reason if problem.status < 500 else None
            metrics.observe_response("unknown", problem.status, 0.0, self._requests.head, rejection)
        self._close()

    def _close(self) -> None:
        self._closed = True
        self._stand(None)
        self.deadline = self._clients.clock() + _LINGER
        self._transport.close()

    def _abort(self) -> None:
        self._closed = True
        self._transport.abort()

    # Waiting.

    def _wait(self, *, waits: bool) -> None:
        """Set what this waits for: until when, and in which line; `waits` is what `_waits` says."""
        if self._closed:
            return
        now = self._clients.clock()
        if self._paused:
            self._stand(None)
            self.deadline = now + self._read_seconds
        elif self._began is not None:
            self._stand(self._clients.slow if self._arriving is not None else self._line or self._clients.idle)
            self.deadline = self._began + self._read_seconds
        elif waits:
            self._stand(None)
            self.deadline = math.inf
        elif self._line is None:
            self._stand(self._clients.idle)
            self.deadline = now + self._keep_alive_seconds
        deaf = bool(self._behind) or self._paused
        if deaf != self._deaf:
            self._deaf = deaf
            self._transport.pause_reading() if deaf else self._transport.resume_reading()

    def _stand(self, line: Line | None) -> None:
        if line is self._line:
            return
        if self._line is not None:
            self._line.pop(self, None)
        self._line = line
        if line is not None:
            line[self] = None
            self.since = self._clients.clock()
