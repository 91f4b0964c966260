"""Posts one message as a sender would, to try out a source."""

import http.client
import ssl
from collections.abc import Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from threading import Thread
from typing import Final
from urllib.parse import urlsplit

_DEADLINE: Final = 30.0  # seconds for the whole: to connect, to send, for the answer
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

    Raises `OSError` or `http.client.HTTPException` when there is no answer within 30 seconds.
    """
    # Timeouts of sockets begin anew with every byte; a thread can be left behind whatever it waits for. The process ends it.
    posted: Future[Answer] = Future()
    Thread(target=_settle, args=(posted, url, headers, body), name="post", daemon=True).start()
    wait([posted], _DEADLINE)
    if not posted.done():
        raise TimeoutError(f"no whole answer within {_DEADLINE:.0f} s")
    return posted.result()


def _settle(posted: "Future[Answer]", url: str, headers: Mapping[str, str], body: bytes) -> None:
    try:
        posted.set_result(_post(url, headers, body))
    except BaseException as error:  # noqa: BLE001 - the caller raises it
        posted.set_exception(error)


def _post(url: str, headers: Mapping[str, str], body: bytes) -> Answer:
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
