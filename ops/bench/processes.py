"""The processes of a benchmark: none is left, however it ends."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psutil

from ops.errors import OpsError
from ops.servers.process_tree import end_all

_STOP_SECONDS: Final = 30.0


def start(command: Sequence[str], env: Mapping[str, str]) -> psutil.Popen:
    """Start a process without its output."""
    return psutil.Popen(command, env=dict(env), stdout=subprocess.DEVNULL)


def start_telling(command: Sequence[str], env: Mapping[str, str]) -> psutil.Popen:
    """Start a process whose output is read by lines while it runs."""
    return psutil.Popen(command, env=dict(env), stdout=subprocess.PIPE, text=True)


def ended(command: Sequence[str], seconds: float | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end, which may take so long; gives what it said."""
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)


def figures_of(command: Sequence[str], seconds: float | None = None) -> dict[str, Any]:
    """The JSON object that a program of ours prints. Raises `OpsError` with the end of what it says when it fails."""
    done = ended(command, seconds)
    if done.returncode:
        raise OpsError(f"{' '.join(command[1:3])} of the benchmark failed: {done.stderr.strip()[-300:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def running(
    commands: Sequence[Sequence[str]], env: Mapping[str, str], stop_seconds: float = _STOP_SECONDS
) -> Iterator[Sequence[psutil.Popen]]:
    """Run the commands, without their output, while the block runs; kill those that do not stop when asked to."""
    processes: list[psutil.Popen] = []
    try:
        for command in commands:
            processes.append(start(command, env))  # noqa: PERF401 - what has started is ended if the next one does not start
        yield processes
    finally:
        end_all(processes, stop_seconds)
