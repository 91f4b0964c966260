"""A request that is being received: its headers, and its body within bounds."""

import re
import secrets
from collections.abc import Callable, Sequence
from itertools import count
from typing import Final, Protocol

from ops.telemetry.tracing.ingress_spans import Receiving
from pipeline.sources import Headers
from schemas.blob import LARGEST
from schemas.source import Source
from workers.ingress.problems import RETRY_AFTER, Answer, Problem
from workers.ingress.request_parser import RequestHead

MAX_HELD: Final = LARGEST + 32 * 1024 * 1024  # bytes of bodies that one process holds: the largest one, and others beside it

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
_MEDIA_TYPE = re.compile(r"[\w!#$%&'*+.^`|~-]+/[\w!#$%&'*+.^`|~-]+", re.ASCII)
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]*)", re.IGNORECASE)
_JSON = re.compile(r"[/+]json$")
_PLAIN: Final = ("application/json", "application/json; charset=utf-8")  # most senders' content types

_RUN: Final = secrets.token_hex(8)
_numbers = count()


def fresh_id() -> str:
    """An id for a request: unique in this process, and across processes with high probability."""
    return f"{_RUN}{next(_numbers):016x}"


class Budget:
    """Bounds the bytes of all bodies that the process holds."""

    def __init__(self, limit: int = MAX_HELD) -> None:
        self._left = limit

    def take(self, size: int) -> None:
        """Take `size` bytes. Raises `Problem` when that exceeds the limit; they must be given back even then."""
        self._left -= size
        if self._left < 0:
            raise Problem("unavailable", "too much is being received at once", RETRY_AFTER)

    def give(self, size: int) -> None:
        """Give back `size` bytes."""
        self._left += size


class Incoming:
    """One request. Its handler calls `answer` once, as soon as the answer is known."""

    def __init__(self, head: RequestHead, budget: Budget, answer: Callable[["Incoming", Answer], None]) -> None:
        self.method, self.path, headers, self.keep_alive, self.expects_continue = head
        self.headers: Headers = headers
        wanted = headers.get("x-request-id")
        self.id = wanted if wanted is not None and _REQUEST_ID.fullmatch(wanted) else fresh_id()
        self.size = 0
        self.limit: int | None = None  # bytes; known once the handler has begun
        self.whole = False
        self.answered = False
        self.handler: Handler
        self.segments: Sequence[str] = ()  # the segments of the path, decoded; the first is empty
        self.source: Source  # the source that sent the message
        self.began = 0.0  # when its head was complete, in seconds
        self.receiving: Receiving | None = None  # its spans, while traces are recorded
        self._answer = answer
        self._budget = budget
        self._chunks: list[bytes] = []

    def answer(self, answer: Answer) -> None:
        """Answer the request and release its body. Later calls do nothing, nor does one after `drop`."""
        if not self.answered:
            self.drop()
            self._answer(self, answer)

    def drop(self) -> None:
        """Release the body without an answer: the client has disconnected."""
        if not self.answered:
            self.answered = True
            self._budget.give(self.size)
            self._chunks = []

    def check_form(self) -> None:
        """Raise `Problem` when the body's encoding or media type is not supported."""
        if "content-encoding" in self.headers and self.headers["content-encoding"].strip().lower() not in ("", "identity"):
            raise Problem("content_type", "Content-Encoding is not supported: send the body as it is")
        content_type = self.headers.get("content-type")
        if content_type is None or content_type in _PLAIN:
            return
        media_type = content_type.partition(";")[0].strip()
        if not _MEDIA_TYPE.fullmatch(media_type):
            raise Problem("content_type", "Content-Type holds no media type")
        charset = _CHARSET.search(content_type)
        if charset and _JSON.search(media_type.lower()) and charset.group(1).lower() not in ("utf-8", "utf8", "us-ascii"):
            raise Problem("content_type", "JSON is UTF-8 (RFC 8259); another charset is not supported")

    def allow(self, limit: int) -> None:
        """Accept a body of at most `limit` bytes. Raises `Problem` when it is known to be larger, or has no declared length."""
        self.limit = limit
        if max(self._declared(), self.size) > limit:
            raise self._too_large(limit)

    def add(self, chunk: bytes) -> None:
        """Add a piece of the body. Raises `Problem` as soon as the body exceeds its limit."""
        if self.answered:
            return
        self.size += len(chunk)
        self._chunks.append(chunk)
        self._budget.take(len(chunk))
        if self.limit is not None and self.size > self.limit:
            raise self._too_large(self.limit)

    def body(self) -> bytes:
        """The body received so far; the request then no longer holds it."""
        chunks, self._chunks = self._chunks, []
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _declared(self) -> int:
        length = self.headers.get("content-length")
        if length is None:
            if "transfer-encoding" not in self.headers:
                raise Problem("length_required", "send Content-Length, or the body in chunks")
            return 0
        if not (length.isascii() and length.isdigit() and len(length) < 20):
            raise Problem("malformed", "Content-Length is not a number")
        return int(length)

    @property
    def unread(self) -> list[tuple[str, str]]:
        """The headers that an answer needs if the body was not read."""
        # A client that waits for "100 Continue" may send the body now or not; only a new connection is unambiguous.
        return [("Connection", "close")] if "expect" in self.headers else []

    def _too_large(self, limit: int) -> Problem:
        return Problem("too_large", f"this source takes {limit} bytes", *self.unread)


class Handler(Protocol):
    """Handles the requests of a path."""

    def begin(self, request: Incoming) -> None:
        """Called when the head is complete: answer, or `allow` a body. Raises `Problem`."""

    def complete(self, request: Incoming) -> None:
        """Called when the body is complete: answer, now or later. Raises `Problem`."""

    def refuse(self, request: Incoming, problem: Problem) -> None:
        """Answer with `problem`."""
