"""The socket to an IMAP server: TLS from the first byte, and a deadline and a bound for every read and write."""

import imaplib
import io
import logging
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from imapclient import IMAPClient

from pipeline.delivery.addresses import Network
from workers.net.dial import dial_blocking

SILENCE: Final = 20.0  # seconds without a byte, after which a server counts as hung
MAX_LITERAL: Final = 9 * 1024 * 1024  # bytes: a little more than a batch's; larger mails are fetched in pieces
MAX_LINE: Final = 1_000_000  # bytes: more UIDs than one search returns
MAX_ANSWER: Final = 64 * 1024 * 1024  # bytes in answer to one command
_BUFFER: Final = 64 * 1024


class Clock:
    """The deadline of the current command, and the bytes that it may still read."""

    def __init__(self, until: float) -> None:
        """`until`: by the monotonic clock."""
        self.until = until
        self.bytes = MAX_ANSWER

    def left(self) -> float:
        """Seconds for the next read or write. Raises `TimeoutError` after the deadline."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return min(left, SILENCE)

    def read(self, count: int) -> None:
        """Count bytes read. Raises `OSError` if they are too many."""
        self.bytes -= count
        if self.bytes < 0:
            raise OSError(f"the server sends more than {MAX_ANSWER} bytes in one answer")


class Client(IMAPClient):  # type: ignore[misc]
    """IMAPClient on a `Wire`. Logs nothing: its log lines would hold passwords and mails."""

    def __init__(
        self, host: str, port: int, context: ssl.SSLContext | None, clock: Clock, allowed: Sequence[Network] = ()
    ) -> None:
        """Connects, to an address that is public or in `allowed`. Raises imaplib's errors and OSError."""
        self.clock = clock
        self._context = context
        self._allowed = allowed
        logging.getLogger("imapclient").setLevel(logging.WARNING)
        super().__init__(host, port, ssl=context is not None)
        self.normalise_times = False
        self.wire.debug = 0

    @property
    def wire(self) -> "Wire":
        """The underlying protocol object."""
        wire = self._imap
        assert isinstance(wire, Wire)
        return wire

    def _create_IMAP4(self) -> "Wire":  # noqa: N802 - the library's name
        return Wire(self.host, self.port, self._context, self.clock, self._allowed)

    def _set_read_timeout(self) -> None:
        """Does nothing: each read sets its own timeout."""


class Wire(imaplib.IMAP4):
    """imaplib's protocol over a socket whose every read and write the clock bounds.

    It overrides the methods that imaplib documents as replaceable (open, read, readline, send, shutdown), and shares no buffer
    with it: imaplib's attributes for those differ between Python versions.
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None, clock: Clock, allowed: Sequence[Network]) -> None:
        self._context = context
        self._allowed = allowed
        self.clock = clock
        self._reader: _Reader
        self._lines: io.BufferedReader
        self._aside: list[bytes] | None = None
        super().__init__(host, port)

    def open(self, host: str = "", port: int = 143, timeout: float | None = None) -> None:  # noqa: ARG002
        """Connect, including the TLS handshake."""
        self.host, self.port = host, port
        plain = dial_blocking(host, port, self._allowed, self.clock.left)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            plain.settimeout(self.clock.left())
            self.sock = plain if self._context is None else self._context.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise
        self._reader = _Reader(self.sock, self.clock)
        self._lines = io.BufferedReader(self._reader, _BUFFER)

    def read(self, size: int) -> bytes:
        """Read a literal."""
        if size > MAX_LITERAL:
            raise self.abort(f"the server sends a literal of {size} bytes")
        return self._lines.read(size)

    def readline(self) -> bytes:
        """Read a line. Raises `abort` for one that is too long."""
        while True:
            line = self._lines.readline(MAX_LINE + 1)
            if len(line) > MAX_LINE:
                raise self.abort(f"the server sends a line of more than {MAX_LINE} bytes")
            if self._aside is None or not line.startswith(b"* "):
                return line
            self._aside.append(line)

    @contextmanager
    def set_aside(self) -> Iterator[list[bytes]]:
        """Within this context, untagged lines are collected in the returned list, and imaplib does not see them."""
        lines: list[bytes] = []
        self._aside = lines
        try:
            yield lines
        finally:
            self._aside = None

    def send(self, data: Any) -> None:
        """Write."""
        self.sock.settimeout(self.clock.left())
        self.sock.sendall(data)

    def pending(self) -> bool:
        """Whether there is unread input. Does not wait."""
        self._reader.patient = False
        try:
            return bool(self._lines.peek(1))
        finally:
            self._reader.patient = True

    def shutdown(self) -> None:
        """Called by imaplib after a malformed greeting."""
        self.hang_up()

    def hang_up(self) -> None:
        """Close the socket, without LOGOUT and without waiting."""
        try:
            self.sock.close()
        except OSError:
            return


class _Reader(io.RawIOBase):
    """The socket as a raw file whose reads obey the clock."""

    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        self._sock = sock
        self._clock = clock
        self.patient = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        if not self.patient:
            return self._at_once(buffer)
        self._sock.settimeout(self._clock.left())
        count = self._sock.recv_into(buffer)
        self._clock.read(count)
        return count

    def _at_once(self, buffer: Any) -> int | None:
        self._sock.settimeout(0.0)
        try:
            return self._sock.recv_into(buffer)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
