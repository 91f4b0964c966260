"""Requests to a time-stamping authority or a witness: bounded in time, and in the size of the answer."""

import http.client
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from ops.errors import PlaceAway
from ops.runtime.calls_in_time import CallsInTime, Late
from ops.runtime.tls import system_context

LARGEST: Final = 64 * 1024  # bytes of an answer


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    body: bytes

    @property
    def text(self) -> str:
        """The beginning of the body, for a person."""
        return self.body[:200].decode("utf-8", "replace").strip().partition("\n")[0]


class Poster:
    """Posts to one URL, and gets other files of its host.

    `seconds` limits a request from the look-up of the name to the last byte of the answer. It follows no redirect, and sends
    nothing twice. The URL is the operator's own, so any address is allowed.
    """

    def __init__(self, url: str, content_type: str, seconds: float) -> None:
        self._url = url
        self._parts = urlsplit(url)
        self._content_type = content_type
        self._seconds = seconds
        self._calls = CallsInTime(seconds, 2)

    def post(self, body: bytes) -> Answer:
        """The server's answer, whatever its status. Raises `PlaceAway`."""
        headers = {"Content-Type": self._content_type, "Content-Length": str(len(body))}
        return self._asked("POST", self._parts.path or "/", headers, body)

    def get(self, path: str) -> Answer:
        """What there is at this path, in place of the URL's own. Raises `PlaceAway`."""
        return self._asked("GET", path, {}, None)

    def _asked(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        try:
            return self._calls.call("answer", lambda: self._ask(method, path, headers, body))
        except Late as late:
            raise PlaceAway(f"{self._url} {late}") from late
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise PlaceAway(f"{self._url} cannot be asked: {error}") from error

    def _ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        connection = self._connection()
        try:
            connection.request(method, path, body, {**headers, "User-Agent": "waxseal"})
            response = connection.getresponse()
            content = response.read(LARGEST + 1)
        finally:
            connection.close()
        if len(content) > LARGEST:
            raise ValueError("its answer is too long")
        return Answer(response.status, content)

    def _connection(self) -> http.client.HTTPConnection:
        host = self._parts.hostname or ""
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(host, self._parts.port, timeout=self._seconds, context=system_context())
        return http.client.HTTPConnection(host, self._parts.port, timeout=self._seconds)
