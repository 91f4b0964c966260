"""The processes of a benchmark: none is left, however it ends."""

import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import psutil

from ops.servers.process_tree import end, see

_STOP_SECONDS: Final = 30.0


@contextmanager
def running(
    commands: Sequence[Sequence[str]], env: Mapping[str, str], stop_seconds: float = _STOP_SECONDS
) -> Iterator[Sequence[psutil.Popen]]:
    """Run the commands, without their output, while the block runs; kill those that do not stop when asked to."""
    processes: list[psutil.Popen] = []
    try:
        for command in commands:
            process = psutil.Popen(command, env=dict(env), stdout=subprocess.DEVNULL)
            processes.append(process)
        yield processes
    finally:
        end_all(processes, stop_seconds)


def end_all(processes: Sequence[psutil.Popen | subprocess.Popen[bytes]], seconds: float) -> None:
    """Ask the processes to stop, together; after `seconds` kill those that are left, with all that they started."""
    seen = [found for process in processes if process.poll() is None and (found := see(process.pid))]
    end(dict.fromkeys(seen, signal.SIGTERM), seconds)
    for process in processes:
        process.wait(10)
