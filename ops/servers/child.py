"""A process, server or worker, that is started, watched, restarted and stopped."""

import os
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import IO, Final

from ops.errors import NotReady
from ops.servers.accounts import Account, make_folder
from ops.servers.forks import Fork
from ops.servers.process_tree import SeenProcess, end, see, spawn, wait_until

_TOLD: Final = re.compile(r"^(?:Error: |.* FATAL: +)(.+)$", re.MULTILINE)
_LARGEST_LOG: Final = 50 * 2**20


@dataclass
class Child:
    """How to run and stop a process; `process` is the running one, if any.

    `clear` removes what an earlier process may have left behind; `ready` asks the process itself; the kernel sends it
    `at_our_death` when we are killed. If `forked`, the command is one of `waxseal`, see `Fork`. `restarts`
    and `last_end` are its supervisor's: how often it was restarted, and how the process before ended.
    """

    name: str
    role: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    folder: Path
    ready: Callable[[], bool]
    clear: Callable[[], object] = lambda: None
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    at_our_death: signal.Signals = signal.SIGTERM
    forked: bool = False
    process: Popen[bytes] | Fork | None = field(default=None, repr=False)
    seen: SeenProcess | None = None
    began: float = 0.0
    restarts: int = 0
    last_end: str = ""
    _log_from: int = 0

    @property
    def pid(self) -> int:
        """The pid of the running process. Raises `NotReady` when there is none."""
        if self.process is None:
            raise NotReady(f"{self.name} is not running")
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process runs; reaps it when it has died."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start the process without waiting until it is ready. Its output is appended to the log."""
        self.clear()
        with open_log(self.log) as output:
            self._log_from = output.tell()
            self.process = self._forked(output) if self.forked else self._spawned(output)
        self.seen, self.began = see(self.process.pid), time.monotonic()

    def _spawned(self, output: IO[bytes]) -> Popen[bytes]:
        return spawn(
            list(self.command),
            dict(self.environment),
            folder=str(self.folder),
            output=output,
            account=self.account,
            at_our_death=self.at_our_death,
        )

    def _forked(self, output: IO[bytes]) -> Fork:
        return Fork(*self.command, env=self.environment, folder=str(self.folder), output=output)

    def failure(self) -> str:
        """Say in one line how the process ended, the reason if it logged one, and where its log is."""
        code = None if self.process is None else self.process.poll()
        how = "does not answer" if code is None else f"was killed by {_name(-code)}" if code < 0 else f"exited with {code}"
        why = last_error(self.log, self._log_from)
        return f"{self.name} {how}{': ' if why else ''}{why} (log: {self.log})"


def open_log(path: Path) -> IO[bytes]:
    """Open a log for appending; only the owner can read it. A log over 50 MiB is renamed first."""
    make_folder(path.parent)
    if path.exists() and path.stat().st_size > _LARGEST_LOG:
        path.replace(path.with_suffix(".log.1"))
    log = os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")
    log.seek(0, os.SEEK_END)
    return log


def last_error(path: Path, since: int = 0) -> str:
    """Give the last error that a `waxseal` process, or PostgreSQL, wrote to its log; empty if there is none, or no log."""
    try:
        with path.open("rb") as log:
            log.seek(max(since, path.stat().st_size - 20_000))
            told = _TOLD.findall(log.read().decode(errors="replace"))
    except OSError:  # an operator has moved or removed it
        return ""
    return str(told[-1]) if told else ""


def wait_ready(children: Sequence[Child], seconds: float, interrupted: Callable[[], None] = lambda: None) -> None:
    """Wait until all are ready. Raises `NotReady` as soon as one has died, or when the time is up.

    `interrupted` is called on every round, and may raise to give up.
    """
    waiting = list(children)

    def all_ready() -> bool:
        interrupted()
        for child in waiting:
            if not child.running:
                raise NotReady(child.failure())
        while waiting and waiting[0].ready():  # the others are asked later: to ask is work for both
            waiting.pop(0)
        return not waiting

    if not wait_until(all_ready, seconds):
        late = [child for child in waiting if not child.ready()] or waiting
        raise NotReady(f"not ready after {seconds:.0f} s: " + "; ".join(child.failure() for child in late))


def stop(children: Sequence[Child], seconds: float) -> None:
    """Stop these processes together; kill those that take longer, with all that they started. None is left."""
    end({child.seen: child.stop_signal for child in children if child.seen is not None}, seconds)
    for child in children:
        if child.process is not None:
            child.process.wait(timeout=10)
        child.process = child.seen = None


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
