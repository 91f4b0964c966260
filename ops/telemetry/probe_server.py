"""Serves /livez, /readyz and /metrics for the processes that have no web server, such as relay, ingest and deliver."""

import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

import structlog

from ops.runtime.bounded_server import BoundedServer
from ops.telemetry.probes import SECURITY_HEADERS, Answer, Check, Heart, Readiness, metrics

_SOCKET_SECONDS = 3.0  # without a byte
_REQUEST_SECONDS = 8.0  # for a whole request; above the deadline of checks, below an orchestrator's timeout
_MAX_REQUESTS = 16
_LOOK = 0.5  # seconds between two looks for requests that take too long: each wakes an idle process
_NOT_FOUND = Answer(404, "text/plain; charset=utf-8", b"try /livez, /readyz or /metrics\n")
_NOT_ALLOWED = Answer(405, "text/plain; charset=utf-8", b"only GET and HEAD\n")

_log = structlog.get_logger()

Routes = Mapping[str, Callable[[str], Answer]]
"""What answers each path; it is given the Accept header."""


class ProbeServer:
    """A running probe server, on `port`; it serves until `close`."""

    def __init__(self, server: "_Server", heart: Heart) -> None:
        self.port: int = server.server_address[1]
        self._server = server
        self._heart = heart
        self._thread = threading.Thread(target=server.serve_forever, args=(_LOOK,), name="health", daemon=True)
        self._thread.start()

    def beat(self) -> None:
        """Note that the main loop runs; /livez fails when the last beat is too old."""
        self._heart.beat()

    def close(self) -> None:
        """Stop listening and free the port."""
        with suppress(OSError):  # only Linux shuts down a socket that listens, which wakes the thread at once
            self._server.socket.shutdown(socket.SHUT_RDWR)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve(
    host: str, port: int, checks: Mapping[str, Check], *, beat_limit: float = 30.0, check_deadline: float = 2.0
) -> ProbeServer:
    """Serve the probes from a thread; port 0 takes a free one.

    /livez is 200 while `beat` was called within `beat_limit` seconds; /readyz is 200 when all `checks` pass within
    `check_deadline` seconds. Raises `OSError` when it cannot listen.
    """
    heart = Heart(beat_limit)
    readiness = Readiness(checks, check_deadline)
    routes: Routes = {"/livez": lambda _: heart.answer(), "/readyz": lambda _: readiness.answer(), "/metrics": metrics}
    return ProbeServer(_Server(host, port, routes), heart)


class _Server(BoundedServer):
    """Bounds the seconds of each request, however slow its client."""

    request_queue_size = 64
    clients = _MAX_REQUESTS

    def __init__(self, host: str, port: int, routes: Routes) -> None:
        self.routes = routes
        self._open: dict[socket.socket, float] = {}
        super().__init__(host, port, _Handler)

    def begun(self, request: socket.socket) -> None:
        self._open[request] = time.monotonic() + _REQUEST_SECONDS

    def ended(self, request: socket.socket) -> None:
        self._open.pop(request, None)

    def service_actions(self) -> None:
        """Cut off, twice a second, requests that take too long: a slow client's bytes reset the socket's timeout."""
        now = time.monotonic()
        for request, until in list(self._open.items()):
            if until < now:
                _cut(request)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - the base class' form
        """Ignore clients that disconnected, and log other errors; serving goes on."""
        if not isinstance(sys.exception(), OSError):
            _log.exception("probe_failed")


def _cut(request: socket.socket) -> None:
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has ended by itself meanwhile


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SOCKET_SECONDS
    server_version = "waxseal"
    sys_version = ""
    default_request_version = "HTTP/1.0"

    def do_GET(self) -> None:
        route = self.server.routes.get(urlsplit(self.path).path)
        self._send(_NOT_FOUND if route is None else route(self.headers.get("Accept", "")))

    def do_HEAD(self) -> None:
        self.do_GET()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Answer other methods, and what is not HTTP, in the same plain form."""
        self.close_connection = True
        text = f"{HTTPStatus(code).phrase}\n".encode()
        self._send(_NOT_ALLOWED if code == 501 else Answer(code, "text/plain; charset=utf-8", text))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class'
        """Log nothing: probes come every few seconds."""

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in SECURITY_HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        if answer is _NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
