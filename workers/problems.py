"""Errors over HTTP, as RFC 9457 has them."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final

import orjson

from ops.probes import SECURITY_HEADERS

RawHeaders = list[tuple[bytes, bytes]]

SECURITY: Final[RawHeaders] = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
RETRY_AFTER: Final = ("Retry-After", "5")  # seconds: about what a broker takes to restart

#: Every problem that is answered, with its status and title; its type is a URN of the name.
PROBLEMS: Final[Mapping[str, tuple[int, str]]] = {
    "malformed": (400, "The message cannot be read"),
    "signature": (401, "The signature is not right"),
    "timestamp": (401, "The message is too old, or from the future"),
    "not_found": (404, "There is nothing here"),
    "method": (405, "Not with this method"),
    "too_slow": (408, "The request took too long to arrive"),
    "length_required": (411, "The length is missing"),
    "too_large": (413, "The message is too large"),
    "content_type": (415, "The form of the body is not understood"),
    "rate_limited": (429, "Too many messages"),
    "head_too_large": (431, "The headers are too large"),
    "internal": (500, "Something went wrong here"),
    "unavailable": (503, "The message could not be kept; send it again"),
}


class Problem(Exception):
    """A request that was turned away. `detail` is for whoever sent it: nothing secret in it."""

    def __init__(self, name: str, detail: str, *headers: tuple[str, str], reason: str | None = None) -> None:
        """`reason` is the metrics' word for it, where it is finer than the problem's name."""
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

    def answer(self, request_id: str) -> tuple[RawHeaders, bytes]:
        """The answer's headers and body."""
        body = self.body(request_id)
        return answer_headers(b"application/problem+json", body, request_id, self.headers), body

    def wire(self, request_id: str) -> bytes:
        """The whole answer, for a request that could not be read; the connection ends with it."""
        headers, body = self.answer(request_id)
        lines = b"".join(b"%b: %b\r\n" % header for header in (*headers, (b"connection", b"close")))
        return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (self.status, HTTPStatus(self.status).phrase.encode(), lines, body)


def answer_headers(content_type: bytes, body: bytes, request_id: str, more: Iterable[tuple[str, str]] = ()) -> RawHeaders:
    """The headers of every answer."""
    return [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode()),
        *SECURITY,
        *((name.lower().encode(), value.encode()) for name, value in more),
    ]
