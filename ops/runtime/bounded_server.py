"""A TCP server with a thread for each client, for a bounded number of clients."""

import socket
import threading
from collections.abc import Callable
from socketserver import BaseRequestHandler, TCPServer, ThreadingMixIn
from typing import Any


class BoundedServer(ThreadingMixIn, TCPServer):
    """Serves at most `clients` at a time. The next one waits for `patience` seconds and is then cut off.

    Those after it wait in the kernel's queue, where they cost nothing.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    clients = 16
    patience = 0.5

    def __init__(self, host: str, port: int, handler: Callable[[Any, Any, Any], BaseRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._slots = threading.BoundedSemaphore(self.clients)
        super().__init__((host, port), handler)

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """Start a thread, or hang up when there are too many."""
        if not self._slots.acquire(timeout=self.patience):
            self.shutdown_request(request)
            return
        self.begun(request)
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread could be started
            self._end(request)
            raise

    def process_request_thread(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """Answer one client."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._end(request)

    def begun(self, request: socket.socket) -> None:
        """A client is about to be answered."""

    def ended(self, request: socket.socket) -> None:
        """It was answered, or has gone."""

    def _end(self, request: socket.socket) -> None:
        self.ended(request)
        self._slots.release()
