"""Errors over HTTP, as RFC 9457 has them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import orjson

from ops.probes import SECURITY_HEADERS

RawHeaders = list[tuple[bytes, bytes]]

SECURITY: Final[RawHeaders] = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
RETRY_SECONDS: Final = 5  # what a 503 asks for: a broker that restarts needs about as long

#: Every problem that is answered: its status and its title. The type is a URN of the name.
PROBLEMS: Final[Mapping[str, tuple[int, str]]] = {
    "malformed": (400, "The message cannot be read"),
    "signature": (401, "The signature is not right"),
    "timestamp": (401, "The message is too old or from the future"),
    "not-found": (404, "There is no such source"),
    "method": (405, "Messages are sent with POST"),
    "too-slow": (408, "The request took too long to arrive"),
    "length-required": (411, "The length is missing"),
    "too-large": (413, "The message is too large"),
    "content-type": (415, "The form of the body is not understood"),
    "rate-limited": (429, "Too many messages"),
    "headers-too-large": (431, "The headers are too large"),
    "internal": (500, "Something went wrong here"),
    "unavailable": (503, "The message could not be kept; send it again"),
}


@dataclass(frozen=True, slots=True)
class Problem(Exception):
    """A request that is not answered with 202; `detail` is for whoever sent it, and holds nothing secret."""

    name: str
    detail: str
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def status(self) -> int:
        """The status it is answered with."""
        return PROBLEMS[self.name][0]

    def body(self, request_id: str) -> bytes:
        """The answer's body, application/problem+json."""
        status, title = PROBLEMS[self.name]
        kind = f"urn:waxseal:problem:{self.name}"
        detail = self.detail.encode(errors="replace").decode()
        return orjson.dumps({"type": kind, "title": title, "status": status, "detail": detail, "request_id": request_id})

    def raw(self, request_id: str) -> bytes:
        """The whole answer as it goes over the wire, for when the request was not even read; the connection then closes."""
        body = self.body(request_id)
        headers = [*answer_headers(b"application/problem+json", body, request_id, self.headers), (b"connection", b"close")]
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
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
