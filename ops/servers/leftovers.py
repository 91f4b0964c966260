"""Servers that a killed run left behind, found by their working directory."""

import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from ops.servers.process_tree import SeenProcess, end

_PROGRAMS: Final = {"postgres", "beam.smp", "epmd", "initdb", "prometheus"}
_STOP_SECONDS: Final = 20.0


def end_leftovers(*folders: Path) -> int:
    """End every server whose working directory is one of the folders; returns how many there were.

    A pid file is no proof, as another process may have its pid by now; the working directory is one.
    """
    found = _working_in({str(folder.resolve()) for folder in folders})
    end(found, _STOP_SECONDS)
    return len(found)


def _working_in(folders: set[str]) -> dict[SeenProcess, signal.Signals]:
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.name() in _PROGRAMS and process.cwd() in folders:
                request = signal.SIGINT if process.name() == "postgres" else signal.SIGTERM
                found[SeenProcess(process.pid, process.create_time())] = request
    return found
