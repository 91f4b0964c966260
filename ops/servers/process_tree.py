"""Processes: started so that they end with us, identified by pid and start time, and stopped with all that they started.

A program that may take hours is ended when it makes no progress.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, CompletedProcess, Popen, TimeoutExpired
from typing import IO, Final

import psutil

from ops.errors import OpsError
from ops.servers.accounts import Account, switch_to

_PR_SET_PDEATHSIG: Final = 1
STILL: Final = 300.0  # seconds without progress
_LOOK: Final = 1.0
_END: Final = 10.0

# PyDLL does not release the interpreter's lock, which a forked child could wait for in vain.
_libc: Final = ctypes.PyDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class SeenProcess:
    """A process, identified by pid and start time: a later one may have the same pid."""

    pid: int
    started: float

    def alive(self) -> bool:
        """Whether this same process still runs; a zombie does not."""
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) < 2 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def see(pid: int) -> SeenProcess | None:
    """Identify the process with this pid; None when there is none."""
    try:
        return SeenProcess(pid, psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def spawn(
    command: list[str],
    environment: dict[str, str],
    *,
    folder: str,
    output: IO[bytes] | int = DEVNULL,
    account: Account | None = None,
    at_our_death: signal.Signals | None = signal.SIGTERM,
) -> Popen[bytes]:
    """Start a process in a session of its own, so that a terminal's Ctrl-C does not reach it.

    On Linux the kernel sends it `at_our_death` when the calling thread ends, however it ends: call this from one that lives on.
    """
    return Popen(
        command,
        env=environment,
        cwd=folder,
        stdin=DEVNULL,
        stdout=output,
        stderr=STDOUT,
        start_new_session=True,
        preexec_fn=_dying_with_us(at_our_death),  # noqa: PLW1509 - it takes no lock that a thread could hold
        **switch_to(account),
    )


def _dying_with_us(death_signal: signal.Signals | None) -> Callable[[], None] | None:
    if death_signal is None:
        return None
    us = os.getpid()

    def before_exec() -> None:
        die_with_parent(death_signal)
        if os.getppid() != us:  # the parent died before that took effect
            os._exit(1)

    return before_exec


def die_with_parent(death_signal: signal.Signals) -> None:
    """Have the kernel send us this signal when the thread that started us ends, however it ends; on Linux only."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal))


def wait_until(happened: Callable[[], bool], seconds: float) -> bool:
    """Wait until `happened` gives true, for `seconds` at most; returns whether it did."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def end(requests: Mapping[SeenProcess, signal.Signals], seconds: float) -> None:
    """Send each process its signal, wait, then kill those that are left, and what is left of their sessions. None is left."""
    members = [member for seen in requests for member in _with_children(seen)]
    for seen, request in requests.items():
        _send(seen, request)
    wait_until(lambda: not any(seen.alive() for seen in requests), seconds)
    left = [*members, *(member for seen in requests for member in _session(seen))]
    for seen in left:
        _send(seen, signal.SIGKILL)
    wait_until(lambda: not any(seen.alive() for seen in left), 10)


def _send(seen: SeenProcess, number: signal.Signals) -> None:
    if seen.alive():
        with suppress(ProcessLookupError):
            os.kill(seen.pid, number)


def _with_children(seen: SeenProcess) -> list[SeenProcess]:
    if not seen.alive():
        return []
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(seen.pid).children(recursive=True)
        return [seen, *(found for child in children if (found := see(child.pid)))]
    return [seen]


def _session(seen: SeenProcess) -> list[SeenProcess]:
    """Find what a dead leader left in its session; the kernel does not reuse the session's id while one member lives."""
    members = []
    for pid in psutil.pids():
        with suppress(OSError):
            if os.getsid(pid) == seen.pid and (member := see(pid)) and member.started >= seen.started - 2:
                members.append(member)
    return members


def end_all(processes: Sequence[psutil.Popen | Popen[bytes]], seconds: float) -> None:
    """Ask the processes to stop, together; after `seconds` kill those that are left, with all that they started."""
    seen = [found for process in processes if process.poll() is None and (found := see(process.pid))]
    end(dict.fromkeys(seen, signal.SIGTERM), seconds)
    for process in processes:
        process.wait(10)


Progress = Callable[[psutil.Process], object]
"""A value that differs from the one before while the program makes progress."""


def run_watched(
    command: Sequence[str],
    environment: Mapping[str, str],
    progress: Progress,
    *,
    still: float = STILL,
    told: str = "",
    folder: Path | None = None,
    account: Account | None = None,
) -> CompletedProcess[str]:
    """Run it to its end, with `told` as its input. Raises `OpsError`, and ends it, after `still` seconds without progress."""
    process = Popen(
        command, env=dict(environment), cwd=folder, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True, **switch_to(account)
    )
    try:
        said, complained = _ended(process, progress, still, told)
    except BaseException:
        if seen := see(process.pid):
            end({seen: signal.SIGTERM}, _END)
        process.communicate()
        raise
    return CompletedProcess(command, process.returncode, said, complained)


def _ended(process: Popen[str], progress: Progress, still: float, told: str) -> tuple[str, str]:
    seen, moved, unsent = None, time.monotonic(), told or None
    while True:
        try:
            return process.communicate(unsent, timeout=min(_LOOK, still))
        except TimeoutExpired:
            unsent = None  # it is being sent
        try:
            now = progress(psutil.Process(process.pid))
        except psutil.NoSuchProcess:
            continue
        if now != seen:
            seen, moved = now, time.monotonic()
        elif time.monotonic() - moved > still:
            raise OpsError(f"{Path(str(process.args[0])).name} made no progress for {still:.0f} s, and was ended")  # type: ignore[index]


def work_done(process: psutil.Process) -> object:
    """The CPU time that a program and what it started have used."""
    return process.cpu_times()[:4]
