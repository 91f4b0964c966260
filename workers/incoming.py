"""A request as it comes in: its headers, and its body within bounds."""

import re
import secrets
from typing import Final

from starlette.types import Receive, Scope

from pipeline.kinds import PATH, Headers
from schemas.blob import LARGEST
from workers.problems import RETRY_AFTER, Problem

MAX_HELD: Final = LARGEST + 32 * 1024 * 1024  # bytes of bodies in the hands of one process: the largest, and others beside it

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
_MEDIA_TYPE = re.compile(r"[\w!#$%&'*+.^`|~-]+/[\w!#$%&'*+.^`|~-]+", re.ASCII)
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]*)", re.IGNORECASE)
_JSON = re.compile(r"[/+]json$")


class Gone(Exception):
    """The sender hung up before the request was complete."""


class Budget:
    """Counts the bytes of all bodies in hand."""

    def __init__(self, limit: int = MAX_HELD) -> None:
        self._left = limit

    def take(self, size: int) -> None:
        """Count `size` bytes more. Raises `Problem` when that is too much; they must be given back nevertheless."""
        self._left -= size
        if self._left < 0:
            raise Problem("unavailable", "too much is being received at once", RETRY_AFTER)

    def give(self, size: int) -> None:
        """Count `size` bytes less."""
        self._left += size


class Incoming:
    """One request. Whoever made it gives `size` bytes back to the budget when it is answered."""

    def __init__(self, scope: Scope, budget: Budget) -> None:
        self.method: str = scope["method"]
        headers = headers_of(scope["headers"])
        headers[PATH] = _path(scope)
        self.headers: Headers = headers
        self.size = 0
        self._budget = budget
        wanted = self.headers.get("x-request-id", "")
        self.id = wanted if _REQUEST_ID.fullmatch(wanted) else secrets.token_hex(16)

    def check_form(self) -> None:
        """Raises `Problem` when the body's form is one that could not be read, or not kept as it is."""
        if self.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise Problem("content_type", "Content-Encoding is not supported: send the body as it is")
        content_type = self.headers.get("content-type")
        if content_type is None:
            return
        media_type = content_type.partition(";")[0].strip()
        if not _MEDIA_TYPE.fullmatch(media_type):
            raise Problem("content_type", "Content-Type holds no media type")
        charset = _CHARSET.search(content_type)
        if charset and _JSON.search(media_type.lower()) and charset.group(1).lower() not in ("utf-8", "utf8", "us-ascii"):
            raise Problem("content_type", "JSON is UTF-8 (RFC 8259); another charset is not supported")

    async def body(self, receive: Receive, limit: int) -> bytes:
        """The whole body. Raises `Problem` as soon as it is known to hold more than `limit` bytes, and `Gone`."""
        if self._declared() > limit:
            raise self._too_large(limit)
        chunks: list[bytes] = []
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            chunk, more = message["body"], message["more_body"]
            self.size += len(chunk)
            self._budget.take(len(chunk))
            if self.size > limit:
                raise self._too_large(limit)
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def done(self) -> None:
        """Give back what was read."""
        self._budget.give(self.size)

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
        """What an answer needs among its headers when the body was not read."""
        # Who waits for "100 Continue" may not send the body now, or may: only a new connection is in step again.
        return [("Connection", "close")] if "expect" in self.headers else []

    def _too_large(self, limit: int) -> Problem:
        return Problem("too_large", f"this source takes {limit} bytes", *self.unread)


def headers_of(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers by lower-case name, decoded as Latin-1, which loses nothing."""
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _path(scope: Scope) -> str:
    """What was asked for, still percent-encoded."""
    path: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    return (path + b"?" + query if query else path).decode("latin-1")
