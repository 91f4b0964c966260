"""Posts one message as a sender would, to try out a source."""

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_DEADLINE: Final = 30.0  # seconds for each step: to connect, to send, for the answer
_MAX_ANSWER: Final = 64 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """The response; of a longer body only the first 64 KiB."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


def post(url: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """Post `body` and return the answer, whatever its status. Follows no redirect, uses no proxy, tries once.

    Raises `OSError` or `http.client.HTTPException` when there is no answer.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, parts.port, timeout=_DEADLINE, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=_DEADLINE)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.putrequest("POST", path, skip_accept_encoding=True)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            connection.putheader(name, value.encode("latin-1"))
        connection.endheaders(body)
        answer = connection.getresponse()
        return Answer(answer.status, answer.reason, dict(answer.getheaders()), answer.read(_MAX_ANSWER))
    finally:
        connection.close()
