"""The processes of a benchmark: none is left, however it ends."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import psutil

from ops.servers.process_tree import end_all

_STOP_SECONDS: Final = 30.0


def start(command: Sequence[str], env: Mapping[str, str]) -> psutil.Popen:
    """Start a process without its output."""
    return psutil.Popen(command, env=dict(env), stdout=subprocess.DEVNULL)


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
