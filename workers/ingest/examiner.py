"""Admits suspect messages in a separate process, so that one that hangs, crashes or exhausts memory is identified."""

import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from ops.settings import bare_environment
from pipeline.admit import event_of
from pipeline.errors import Rejected
from schemas.catalog import Catalog
from schemas.event import Event
from schemas.message import Message
from workers.ingest.admit_child import ANSWER, MEMORY, READY, REQUEST, exactly
from workers.ingest.judged import Judged, Refusal, rejected

COMMAND: Final = (sys.executable, "-m", "workers.ingest.admit_child")
LIFE: Final = 3.0  # seconds of CPU for one message, and in addition
PER_MEBIBYTE: Final = 0.1  # seconds of CPU for each MiB of its body
SHORT_LIFE: Final = 0.5  # seconds of CPU, in place of `LIFE`, for a source that killed the process within the last
OFFENCE_SECONDS: Final = 60.0  # seconds
PATIENCE: Final = 5  # the limit of wall time, as a multiple of CPU time: the machine may be busy
START: Final = 60.0  # seconds of wall time for the process to start, which no message influences
EXIT_SECONDS: Final = 1.0  # seconds for the process to exit by itself
IDLE: Final = 30.0  # seconds without a message after which it is ended

Verdict = Sequence[Event] | Refusal


class _Died(Exception):
    """The process exited or was killed in the middle of the message."""

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.too_slow = code is None or code == -signal.SIGPROF
        self.how = "" if code is None else _named(-code) if code < 0 else f"exit code {code}"


class Examiner:
    """One process, started when it is first needed, until `rest` finds it idle or `close`. For one thread."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._used = 0.0  # monotonic seconds
        self._offenders: dict[str, float] = {}  # routing key -> monotonic seconds

    def examine(self, message: Message, catalog: Catalog, epoch: int) -> Judged:
        """Judge `message` by `catalog`, whatever it does to the examining process, within a minute.

        A message that kills the process twice is `crashed`; one that takes too long is `too_slow`, and the next messages of its
        source get less time, so that many of them do not add up. Raises OSError when no process starts within another minute.
        """
        life = self._life(message)
        verdict: Verdict = Refusal("admit", "crashed", "it was not examined")
        for _ in range(2):
            try:
                verdict = self._ask(life, message, catalog)
                break
            except _Died as death:
                self._offenders[message.routing_key] = time.monotonic()
                if death.too_slow:
                    verdict = _too_slow(life)
                    break
                verdict = _crashed(death.how)
        self._used = time.monotonic()
        if isinstance(verdict, Refusal):
            return Judged(message, message.size, epoch, refusal=verdict)
        return Judged(message, message.size, epoch, verdict)

    def rest(self) -> None:
        """End the process if it has been idle for a while."""
        if self._process is not None and time.monotonic() - self._used > IDLE:
            self.close()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()  # makes the process exit
        if process is not None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(EXIT_SECONDS)
                return
            process.kill()
            process.wait()

    def _life(self, message: Message) -> float:
        now = time.monotonic()
        self._offenders = {key: at for key, at in self._offenders.items() if now - at < OFFENCE_SECONDS}
        return (SHORT_LIFE if message.routing_key in self._offenders else LIFE) + PER_MEBIBYTE * len(message.body) / 2**20

    def _ask(self, life: float, message: Message, catalog: Catalog) -> Verdict:
        connection, process = self._started()
        asked = pickle.dumps((life, message, _without_secrets(catalog, message), datetime.now(UTC)))
        connection.settimeout(PATIENCE * (life + 1))
        try:
            connection.sendall(REQUEST.pack(len(asked)) + asked)
            said, bodies = ANSWER.unpack(exactly(connection, ANSWER.size))
            answer = orjson.loads(exactly(connection, said))
            rest = exactly(connection, bodies)
        except TimeoutError:
            process.kill()
            self.close()
            raise _Died(None) from None
        except (OSError, ValueError):
            with suppress(subprocess.TimeoutExpired):
                process.wait(EXIT_SECONDS)  # the exit code is the reason
            if process.poll() is None:
                process.kill()
            code = process.wait()
            self.close()
            raise _Died(code) from None
        return self._verdict(answer, rest, message, catalog)

    def _verdict(self, answer: dict[str, Any], bodies: bytes, message: Message, catalog: Catalog) -> Verdict:
        if "rejected" in answer:
            return rejected(Rejected(*answer["rejected"]))
        if "failed" in answer:
            error, text = answer["failed"]
            if error == MemoryError.__name__:
                self.close()  # it may still hold the memory
                return _crashed(f"it needs more than {MEMORY >> 20} MiB")
            return Refusal("admit", "poison", text or error, error)
        source = catalog.sources[(message.tenant, message.source)]
        events, at = [], 0
        for each in answer["events"]:
            length = each["length"]
            body = message.body if length is None else bodies[at : at + length]
            at += length or 0
            events.append(event_of(source, catalog, each["attributes"], body, each["blob"]))
        return events

    def _started(self) -> "tuple[socket.socket, subprocess.Popen[bytes]]":
        if self._process is None or self._socket is None:
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(COMMAND, stdin=theirs.fileno(), env=bare_environment(), start_new_session=True)
            self._socket = ours
            ours.settimeout(START)
            try:
                exactly(ours, len(READY))
            except OSError as error:
                self._process.kill()
                self.close()
                raise OSError("the process that examines messages does not start") from error
        return self._socket, self._process


def _too_slow(life: float) -> Refusal:
    return Refusal(
        "admit", "too_slow", f"admitting it takes more than {life:.1f} s of CPU: its sender must give it another form"
    )


def _crashed(how: str) -> Refusal:
    return Refusal("admit", "crashed", f"admitting it ends the process ({how}): its sender must give it another form")


def _without_secrets(catalog: Catalog, message: Message) -> Catalog:
    """The part of the catalog that the message is judged by, without keys and secrets."""
    tenant, place = message.tenant, (message.tenant, message.source)
    source = catalog.sources.get(place)
    return Catalog(
        catalog.version,
        {tenant: bytes(32)} if tenant in catalog.tenants else {},
        {} if source is None else {place: replace(source, secrets=())},
        {},
    )


def _named(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
