"""Runs a command and fails when it leaves a process behind, even one that detached: `leaves_nothing.py COMMAND…`."""

# ruff: noqa: INP001 - a script

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 10.0


def main() -> int:
    """Run the command; returns its exit code, or 1 when it succeeded but left a process running."""
    # A process that loses its parent becomes our child, instead of init's.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    code = subprocess.run(sys.argv[1:], check=False).returncode
    deadline = time.monotonic() + GRACE_SECONDS
    while (left := children()) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid, name in left.items():
        sys.stderr.write(f"left behind: {pid} {name}\n")
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return code or (1 if left else 0)


def children() -> dict[int, str]:
    """Reap the children that have ended; gives the names of the others, by pid."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, _, rest = stat.read_text().partition(" (")
            name, _, state = rest.rpartition(") ")
            if int(state.split()[1]) == os.getpid():
                found[int(pid)] = name
    return found


if __name__ == "__main__":
    sys.exit(main())
