"""The receivers of the demo: one works, one recovers, one never does. They check signatures as any receiver should."""

import base64
import hmac
import threading
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Self

FAILURES: Final = 2  # of the endpoint `recovers`, for each event
_LARGEST: Final = 1024 * 1024  # bytes


class Sink(ThreadingHTTPServer):
    """Listens on a free port of the loopback address while the block runs. `verified` counts signatures, by endpoint."""

    daemon_threads = True

    def __init__(self, secrets: Mapping[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.verified: Counter[str] = Counter()
        self.forged: Counter[str] = Counter()
        self._secrets = secrets
        self._tries: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="sink", daemon=True)

    @property
    def url(self) -> str:
        """The base URL of the receivers."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.shutdown()
        self.server_close()

    def answer(self, endpoint: str, headers: Mapping[str, str], body: bytes) -> int:
        """The status that the endpoint answers with."""
        event = headers.get("webhook-id", "")
        with self._lock:
            if not _signed(self._secrets.get(endpoint, ""), headers, body):
                self.forged[endpoint] += 1
                return 401
            self.verified[endpoint] += 1
            self._tries[endpoint, event] += 1
            if endpoint == "broken" or (endpoint == "recovers" and self._tries[endpoint, event] <= FAILURES):
                return 503
            return 204


def _signed(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Standard Webhooks 1.0: one of the signatures is that of id, timestamp and body."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers.get('webhook-id')}.{headers.get('webhook-timestamp')}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.digest(key, signed, "sha256"))
    given = (headers.get("webhook-signature") or "").encode().split()
    return any(hmac.compare_digest(expected, each) for each in given)


class _Handler(BaseHTTPRequestHandler):
    server: Sink
    timeout = 10
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), _LARGEST))
        self.send_response(self.server.answer(self.path.strip("/"), dict(self.headers.items()), body))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class'
        """Log nothing: the demo shows what the ledger says."""
