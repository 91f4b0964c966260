"""Parses requests from a byte stream with httptools, within bounds that httptools lacks."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

import httptools

from pipeline.sources import PATH
from workers.ingress.problems import Problem
from workers.ingress.request_framing import body_only, check_head, path_of

MAX_HEAD: Final = 32 * 1024  # bytes of all headers, or of anything else without progress
MAX_HEADERS: Final = 100

_COMMON: Final = 1024  # bytes of the names of a head that are cached; longer ones rarely repeat


class RequestHead(NamedTuple):
    """A request's head. `path` is without the query, still percent-encoded."""

    method: str
    path: bytes
    headers: dict[str, str]
    keep_alive: bool
    expects_continue: bool  # the sender waits for "100 Continue"


class RequestEvents(Protocol):
    """The callbacks of the parser. They may raise `Problem`, which ends the parsing."""

    def on_begin(self) -> None:
        """The first byte of a request has arrived."""

    def on_head(self, head: RequestHead) -> None:
        """The head of a request is complete; a body may follow."""

    def on_piece(self, piece: bytes) -> None:
        """A piece of the body has arrived."""

    def on_whole(self) -> None:
        """The request is complete."""


class Requests:
    """The parser of one connection."""

    def __init__(self, events: RequestEvents) -> None:
        self._events = events
        self._parser = self._fresh()
        self._resuming = False  # whether a head is being parsed for the second time
        self._advanced = False
        self._stale = 0  # bytes without progress
        self._fault: Problem | None = None
        self.head = 0  # bytes of the last head, or of the one being read
        self._target = b""
        self._lines: list[bytes] = []  # names and values in turn, of the head and then of the trailers, as received
        self._counted = 0  # how many of these are counted
        self._handed = 0  # lines of the head, once it has been passed on
        self._headers: dict[str, str] = {}

    def feed(self, data: bytes | memoryview) -> None:
        """Parse `data`. Raises `Problem` if it is not HTTP or exceeds a bound."""
        self._advanced = False
        try:
            self._feed(data)
        except httptools.HttpParserError:
            raise self._fault or Problem("malformed", "this is not an HTTP request") from None
        if len(self._lines) != self._counted:  # more is to come
            self._count()
        self._stale = 0 if self._advanced else self._stale + len(data)
        if self._stale > MAX_HEAD:
            raise _too_long()

    def _fresh(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # else extra data would spoil the answer
        return parser

    def _feed(self, data: bytes | memoryview) -> None:
        while data:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                # A server may ignore Upgrade (RFC 9110, 7.8), but this parser cannot: a new one parses the body.
                data = data[upgrade.args[0] :]
                self._parser = self._fresh()
                self._resuming = True
                self._parser.feed_data(body_only(self._headers))
                self._resuming = False
                del self._lines[self._counted :]

    # Callbacks of httptools.

    def on_message_begin(self) -> None:
        """Start a request."""
        if not self._resuming:
            self.head = self._counted = self._handed = 0
            self._target = b""
            self._lines = []
            self._events.on_begin()

    def on_url(self, url: bytes) -> None:
        """Count the URL as part of the head."""
        if not self._resuming:
            self._target += url
            self.head += len(url)
            if self.head > MAX_HEAD:
                self._fault = _too_long()
                raise self._fault

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, or a trailer."""
        self._lines += name, value

    def on_headers_complete(self) -> None:
        """Check the head, and pass it on."""
        if self._resuming:
            return
        self._advanced = True
        parser = self._parser
        version, method = parser.get_http_version(), parser.get_method().decode("ascii")
        try:
            self._count()
            headers, hosts = _joined(self._lines)
            self._headers, self._lines = headers, []
            self._handed, self._counted = self._counted, 0
            check_head(version, method, headers, hosts)
            path, query = path_of(self._target)
            headers[PATH] = (path + b"?" + query if query else path).decode("ascii")
            lasting = version != "1.0"
            expects_continue = lasting and "expect" in headers and headers["expect"].lower() == "100-continue"
            self._events.on_head(RequestHead(method, path, headers, lasting and parser.should_keep_alive(), expects_continue))
        except Problem as problem:
            self._fault = problem
            raise

    def on_body(self, body: bytes) -> None:
        """Pass on a piece of the body."""
        self._advanced = True
        try:
            self._events.on_piece(body)
        except Problem as problem:
            self._fault = problem
            raise

    def on_message_complete(self) -> None:
        """End a request: the following data belongs to the next one."""
        if not self._parser.should_upgrade():  # else only the head has ended
            self._advanced = True
            if len(self._lines) != self._counted:  # trailers, which are ignored
                self._count_at_end()
            self._events.on_whole()

    def _count(self) -> None:
        """Raise `Problem` for too large a head. One check for each feed suffices, because a feed is short."""
        lines = self._lines
        self.head += len(b"".join(lines[self._counted :] if self._counted else lines))
        self._counted = len(lines)
        if self.head > MAX_HEAD:
            raise _too_long()
        if self._handed + self._counted > 2 * MAX_HEADERS:
            raise Problem("head_too_large", f"more than {MAX_HEADERS} headers")

    def _count_at_end(self) -> None:
        try:
            self._count()
        except Problem as problem:
            self._fault = problem
            raise


def _joined(lines: Sequence[bytes]) -> tuple[dict[str, str], int]:
    """Headers by lower-case name, repeated ones joined with commas, and the number of Host headers."""
    if not lines:
        return {}, 0
    joined = b"\n".join(lines[::2])
    names = _names(joined) if len(joined) <= _COMMON else _lower(joined)
    values = b"\n".join(lines[1::2]).decode("latin-1").split("\n")
    headers = dict(zip(names, values, strict=True))  # the parser lets no line feed into a value; if it did, this would fail
    if len(headers) < len(names):
        headers = {}
        for name, value in zip(names, values, strict=True):
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers, names.count("host")


def _lower(joined: bytes) -> tuple[str, ...]:
    return tuple(joined.decode("latin-1").lower().split("\n"))


_names = lru_cache(512)(_lower)


def _too_long() -> Problem:
    return Problem("head_too_large", f"more than {MAX_HEAD} bytes of headers")
