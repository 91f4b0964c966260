"""Serves the published logs of a folder over HTTP (c2sp.org/tlog-tiles): any web server does it as well."""

import re
import signal
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog

from ops.errors import OpsError
from ops.runtime import log as logs
from ops.runtime.bounded_server import BoundedServer
from ops.runtime.places import LARGEST
from ops.settings import Settings
from ops.telemetry.probes import SECURITY_HEADERS
from schemas.ledger.log_names import SIZE_DIGITS
from workers.process import wait_for_stop

_SECONDS: Final = 15.0  # without a byte from a client, or to it
_TENANT: Final = r"/[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:/r[1-9]\d{0,8})?"
_CHECKPOINT: Final = re.compile(rf"{_TENANT}/checkpoint", re.ASCII)
_TILE: Final = re.compile(rf"{_TENANT}/tile/(?:\d|entries)/(?:x\d{{3}}/){{0,6}}\d{{3}}(?:\.p/\d{{1,3}})?", re.ASCII)
_STAMP: Final = re.compile(rf"{_TENANT}/timestamps/\d{{{SIZE_DIGITS}}}(?P<reply>\.[a-z0-9-]{{1,200}}\.tsr)?", re.ASCII)

#: A tile of a width never changes; a checkpoint is replaced every few seconds.
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_ALWAYS_ASK: Final = "no-cache"
_TEXT: Final = "text/plain; charset=utf-8"

_log = structlog.get_logger()


class LogServer(BoundedServer):
    """Serves `folder`, a bounded number of clients at a time."""

    request_queue_size = 128
    clients = 256
    patience = 1.0

    def __init__(self, folder: Path, host: str, port: int) -> None:
        self.folder = folder
        super().__init__(host, port, _Handler)
        self.server_port: int = self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are no errors."""


class _Handler(BaseHTTPRequestHandler):
    server: LogServer
    timeout = _SECONDS
    protocol_version = "HTTP/1.1"
    server_version = "waxseal"
    sys_version = ""

    def do_GET(self) -> None:
        """Give a file of a log. Only a path of the layout is ever looked up, so none can lead out of the folder."""
        path = urlsplit(self.path).path
        kind, cache = _kind(path)
        content = self._read(path) if kind else None
        if content is None:
            self._answer(404, _TEXT, b"there is no such file of a log\n", _ALWAYS_ASK)
        else:
            self._answer(200, kind, content, cache)

    def do_HEAD(self) -> None:
        """The same without the content."""
        self.do_GET()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Answer other methods, and what is not HTTP, in the same plain form."""
        self.close_connection = True
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == 501 else HTTPStatus(code)
        self._answer(status, _TEXT, f"{status.phrase}\n".encode(), _ALWAYS_ASK)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class'
        """Log nothing: whoever wants that has a web server in front."""

    def _read(self, path: str) -> bytes | None:
        try:
            with (self.server.folder / path[1:]).open("rb") as file:
                return file.read(LARGEST)
        except OSError:
            return None

    def _answer(self, status: int, content_type: str, content: bytes, cache: str) -> None:
        self.send_response(status)
        for name, value in SECURITY_HEADERS.items():
            if name != "Cache-Control":
                self.send_header(name, value)
        self.send_header("Cache-Control", cache)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _kind(path: str) -> tuple[str, str]:
    """The content type of the file at a path of the layout, and how long it may be kept; none for any other path."""
    if _CHECKPOINT.fullmatch(path):
        return _TEXT, _ALWAYS_ASK
    if _TILE.fullmatch(path):
        return "application/octet-stream", _FOR_EVER
    if stamp := _STAMP.fullmatch(path):
        return "application/timestamp-reply" if stamp["reply"] else _TEXT, _FOR_EVER
    return "", _ALWAYS_ASK


def run(settings: Settings, host: str, port: int) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status."""
    if settings.log_files.startswith("s3://"):
        raise OpsError(f"WAXSEAL_LOG_FILES is {settings.log_files}: let the bucket serve its files")
    logs.configure(settings.log, settings.log_level, "log-server")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        server = LogServer(Path(settings.log_files), host, port)
    except OSError as error:
        raise OpsError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _log.info("serving", folder=settings.log_files, host=host, port=server.server_port)
        wait_for_stop(stop)
        server.shutdown()
    return 0
