"""Runs a program that may take hours, and ends it when it makes no progress."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from signal import SIGTERM
from subprocess import PIPE, CompletedProcess, Popen, TimeoutExpired
from typing import Final

import psutil

from ops.errors import OpsError
from ops.servers.accounts import Account, switch_to
from ops.servers.process_tree import end, see

STILL: Final = 300.0  # seconds without progress
_LOOK: Final = 1.0
_END: Final = 10.0

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
            end({seen: SIGTERM}, _END)
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
