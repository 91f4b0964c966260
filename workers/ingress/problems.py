"""HTTP answers, and errors as RFC 9457 problem details."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

import orjson

from ops.telemetry.probes import SECURITY_HEADERS

RETRY_AFTER: Final = ("Retry-After", "5")  # seconds: about as long as a broker takes to restart

#: Every problem, with its status and title; its type is a URN of the name.
PROBLEMS: Final[Mapping[str, tuple[int, str]]] = {
    "malformed": (400, "The message cannot be read"),
    "signature": (401, "The signature is invalid"),
    "timestamp": (401, "The message is too old, or from the future"),
    "not_found": (404, "Not found"),
    "method": (405, "Method not allowed"),
    "too_slow": (408, "The request took too long to arrive"),
    "length_required": (411, "The length is missing"),
    "too_large": (413, "The message is too large"),
    "content_type": (415, "The body's media type or encoding is not supported"),
    "rate_limited": (429, "Too many messages"),
    "head_too_large": (431, "The headers are too large"),
    "internal": (500, "Internal error"),
    "not_implemented": (501, "Not implemented"),
    "unavailable": (503, "The message could not be kept; send it again"),
}


class Problem(Exception):
    """A rejected request. The client gets to see `detail`: put nothing secret there."""

    def __init__(self, name: str, detail: str, *headers: tuple[str, str], reason: str | None = None) -> None:
        """`reason` is the label in the metrics, if it is finer than the problem's name."""
        self.name = name
        self.detail = detail
        self.headers = headers
        self.reason = reason or name
        self.status, self.title = PROBLEMS[name]
        super().__init__(f"{name}: {detail}")

    def body(self, request_id: str) -> bytes:
        """The answer's body, application/problem+json."""
        return orjson.dumps(
            {
                "type": f"urn:waxseal:problem:{self.name.replace('_', '-')}",
                "title": self.title,
                "status": self.status,
                "detail": self.detail.encode(errors="replace").decode(),
                "request_id": request_id,
            }
        )

    def answer(self, request_id: str) -> "Answer":
        """The answer to the client."""
        return Answer(self.status, b"application/problem+json", self.body(request_id), self.headers)


def internal(error: Exception) -> Problem:
    """The problem for a request that failed through an error of ours."""
    return Problem("internal", f"{type(error).__name__}; it has been logged", RETRY_AFTER)


class Answer(NamedTuple):
    """An answer to a request."""

    status: int
    content_type: bytes
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def closes(self) -> bool:
        """Whether the connection must be closed after it."""
        return ("Connection", "close") in self.headers

    def wire(self, request_id: str, date: bytes, *, close: bool = False, head: bool = False) -> bytes:
        """The encoded answer; `close`: the connection ends after it; `head`: the request was HEAD, so the body is left out."""
        others = [(name.lower(), value) for name, value in self.headers if name != "Connection"]
        more = "".join(f"{name}: {value}\r\n" for name, value in others).encode("latin-1") if others else b""
        return b"%bdate: %b\r\ncontent-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b%b%b\r\n%b" % (
            _STATUS_LINES[self.status],
            date,
            self.content_type,
            len(self.body),
            request_id.encode(),
            _SECURITY,
            more,
            b"connection: close\r\n" if close else b"",
            b"" if head else self.body,
        )


_SECURITY: Final = b"".join(f"{name.lower()}: {value}\r\n".encode() for name, value in SECURITY_HEADERS.items())
_STATUS_LINES: Final = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus}
