"""The console's HTTP against clients that send slowly, or without end."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from workers.console import bounded_protocol
from workers.console.bounded_protocol import MOST_HEAD, MOST_REQUEST
from workers.console.worker import Server

PART = 16 * 1024


async def measure(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


@contextmanager
def connected() -> Iterator[socket.socket]:
    server = Server(Starlette(routes=[Route("/", measure, methods=["GET", "POST"])]), "127.0.0.1", 0)
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            yield client
    finally:
        server.close()


def answers(client: socket.socket) -> bytes:
    """What comes until the server ends the connection."""
    found = b""
    try:
        while more := client.recv(65536):
            found += more
    except ConnectionError:  # what was sent and not read any more
        pass
    return found


def send_on(client: socket.socket, part: bytes, most: int) -> int:
    """Sends `part` again and again, until the server ends the connection or `most` bytes are sent; how many were."""
    sent = 0
    try:
        while sent < most:
            client.sendall(part)
            sent += len(part)
    except ConnectionError:
        pass
    return sent


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT",
    ],
    ids=["nothing", "empty-line", "head", "body", "second"],
)
def test_a_request_that_does_not_arrive_ends_its_connection(monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    monkeypatch.setattr(bounded_protocol, "READ_SECONDS", 0.2)
    with connected() as client:
        client.sendall(begun)
        assert answers(client).split(b"\r\n\r\n")[-2].split(b"\r\n")[0].endswith(b"HTTP/1.1 408 Request Timeout")


@pytest.mark.parametrize(
    ("begun", "part"),
    [
        (b"GET /", b"a" * PART),
        (b"GET / HTTP/1.1\r\nX-Long: ", b"a" * PART),
        (b"GET / HTTP/1.1\r\n", b"X-Many: aaaaaaaa\r\n" * 900),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nX-Long: ", b"a" * PART),
    ],
    ids=["path", "header", "headers", "second"],
)
def test_a_head_without_end_is_refused(begun: bytes, part: bytes) -> None:
    with connected() as client:
        client.sendall(begun)
        assert send_on(client, part, 200 * MOST_HEAD) < 200 * MOST_HEAD


def test_trailers_without_end_are_refused() -> None:
    with connected() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Long: ")
        assert send_on(client, b"a" * PART, 4 * MOST_REQUEST) < 4 * MOST_REQUEST


def test_what_is_small_and_comes_in_time_is_answered_request_by_request() -> None:
    one = b"POST / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * (MOST_HEAD // 2) + b"\r\nContent-Length: 3\r\n\r\nabc"
    with connected() as client:
        for _ in range(3):
            client.sendall(one)
            found = b""
            while not found.endswith(b"\r\n\r\n3"):
                found += client.recv(1) or pytest.fail(f"it ended after {found!r}")
            assert found.startswith(b"HTTP/1.1 200 OK")
        client.sendall(one * 2 + one.replace(b"Host: a", b"Connection: close"))
        assert answers(client).count(b"HTTP/1.1 200 OK") == 3
