"""Parses mails in a child process. A mail on which it hangs, crashes or runs out of memory still gets a document."""

import subprocess
import sys
import threading
from collections.abc import Collection
from contextlib import suppress
from typing import Any, Final

import orjson

from ops.settings import bare_environment
from pipeline.mail.flags import SECONDS, unparsed
from schemas.mail_document import Flag, view
from workers.documents.mail_parser_frames import ANSWER, REQUEST

COMMAND: Final = (sys.executable, "-m", "workers.documents.mail_parser_child")
LIFE: Final = 25.0  # seconds on one mail after which the child ends itself
MARGIN: Final = 5.0  # further seconds after which it is killed
LARGEST_ANSWER: Final = 64 * 1024 * 1024  # bytes
FAREWELL: Final = 1.0  # seconds for it to exit once its stdin is closed
USES: Final = 10_000  # mails after which the child is replaced, because its libraries leak memory
_CLOSED: Final = "the mail parser is closed"


class _Died(Exception):
    """The child died, or was killed, while parsing the mail."""


class MailParser:
    """One child process, started at first use, until `close`. Any thread may call `read`; one mail is parsed at a time."""

    def __init__(self, *, dns: bool, seconds: float = SECONDS, life: float = LIFE, margin: float = MARGIN) -> None:
        """`dns`: whether keys of signatures may be looked up.

        The parser stops after `seconds`, checked between two parts of a mail; after `life` seconds the child ends itself,
        wherever it is; after `margin` more it is killed.
        """
        self._terms = {"dns": dns, "seconds": seconds, "life": life}
        self._longest = life + margin
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._used = 0
        self._closed = False

    def read(self, raw: bytes, trusted: Collection[str] = ()) -> dict[str, Any]:
        """The document of a mail as a JSON object, whatever its bytes, within about a minute.

        A mail on which the child dies is parsed again with `careful`; if the child dies again, the document is flagged
        `unparsed`. Raises OSError if no process can be started, or if this is closed.
        """
        with self._lock:
            for careful in (False, True):
                with suppress(_Died):
                    return self._ask(raw, trusted, careful=careful)
            return unread(raw, "the process that read it took too long, or died", "careful")

    def close(self) -> None:
        """End the child, even while it parses a mail; that `read` then raises OSError."""
        self._closed = True
        idle = self._lock.acquire(timeout=0.1)
        if not idle:
            process = self._process
            if process is not None:
                process.kill()
            self._lock.acquire()
        try:
            self._end()
        finally:
            self._lock.release()

    def _ask(self, raw: bytes, trusted: Collection[str], *, careful: bool) -> dict[str, Any]:
        if self._closed:
            raise OSError(_CLOSED)
        process = self._started()
        watch = threading.Timer(self._longest, process.kill)
        watch.start()
        try:
            terms = orjson.dumps({**self._terms, "trusted": list(trusted), "careful": careful})
            found = _exchanged(process, REQUEST.pack(len(terms), len(raw)) + terms, raw)
        except (OSError, ValueError) as error:
            process.kill()
            self._end()
            raise _Died from error
        finally:
            watch.cancel()
        self._used += 1
        if self._used >= USES:
            self._end()
        return found

    def _started(self) -> "subprocess.Popen[bytes]":
        """The running child. One that died while it was idle is replaced: the next mail did not kill it."""
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._process is not None:
            return self._process
        self._used = 0
        self._process = process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=bare_environment(),
            start_new_session=True,
        )
        if self._closed:  # `close` may have looked for a process before this one was set
            process.kill()
            self._end()
            raise OSError(_CLOSED)
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            for stream in (process.stdin, process.stdout):
                with suppress(OSError):  # closing flushes what is left of a request
                    if stream is not None:
                        stream.close()
            try:
                process.wait(FAREWELL)  # it exits at the end of its stdin
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def unread(raw: bytes, why: str, *flags: Flag) -> dict[str, Any]:
    """The document, as a JSON object, of a mail that could not be parsed at all."""
    found: dict[str, Any] = orjson.loads(orjson.dumps(view(unparsed(raw, why, *flags))))
    return found


def _exchanged(process: "subprocess.Popen[bytes]", request: bytes, raw: bytes) -> dict[str, Any]:
    """The child's answer. Raises OSError or ValueError if it dies before it has answered."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(request)
    process.stdin.write(raw)
    process.stdin.flush()
    head = process.stdout.read(ANSWER.size)
    length = ANSWER.unpack(head)[0] if len(head) == ANSWER.size else 0
    found: dict[str, Any] = orjson.loads(process.stdout.read(min(length, LARGEST_ANSWER)))
    return found
