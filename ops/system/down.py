"""Stops everything that runs on a data folder, whether its supervisor lives, or died and left processes behind."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from typing import Final

from ops.errors import AlreadyRunning, NotReady, OpsError
from ops.servers.leftovers import end_leftovers
from ops.servers.lock import FILE as LOCK
from ops.servers.lock import owner, sole_owner
from ops.servers.private import erase_servers
from ops.servers.process_tree import end, see, wait_until
from ops.servers.state_file import FILE as MEMORY
from ops.servers.state_file import peek
from ops.system.stack_file import FILE as STACK
from ops.system.stack_file import end_recorded
from ops.system.unfinished_restore import MARK as RESTORING

_MADE: Final = (MEMORY, STACK, "keys", "endpoint-secrets", LOCK, RESTORING)
_STOP_SECONDS: Final = 120.0  # workers finish what they hold, then both servers shut down


def down(data: Path) -> str:
    """Stop everything on `data` and say what was done; harmless when nothing runs. Raises `OpsError` when it cannot."""
    if not data.is_dir():
        return f"nothing is running on {data}"
    pid = owner(data)
    if pid is not None:
        _stop_supervisor(pid)
    left = _end_leftovers(data)
    if pid is None and not left:
        return f"nothing is running on {data}"
    return f"stopped; `waxseal up --data {data}` resumes" if pid else f"ended {left} processes that were left behind"


def delete_data(data: Path) -> None:
    """Remove what was made in the data folder, and the servers' data, wherever that is; nothing may be running on it.

    Other files in the folder stay. Raises `OpsError` for a folder that was never used.
    """
    if not (data / MEMORY).exists():
        raise OpsError(f"{data} is not a data folder of waxseal: nothing was removed")
    with sole_owner(data):
        erase_servers(data)
        for name in _MADE:
            (data / name).unlink(missing_ok=True)
        for name in ("log", "blobs"):
            rmtree(data / name, ignore_errors=True)
    with suppress(OSError):  # other files are in it
        data.rmdir()


def _stop_supervisor(pid: int) -> None:
    supervisor = see(pid)
    if supervisor is None:
        return
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise OpsError(f"the supervisor (pid {pid}) is another user's: run `waxseal down` as that user") from error
    if not wait_until(lambda: not supervisor.alive(), _STOP_SECONDS):
        end({supervisor: signal.SIGKILL}, 5)


def _end_leftovers(data: Path) -> int:
    deadline = time.monotonic() + 5
    while True:
        try:
            with sole_owner(data):
                memory = peek(data)
                return end_recorded(data) + (end_leftovers(*memory.workplaces) if memory else 0)
        except AlreadyRunning as error:
            if time.monotonic() > deadline:
                raise NotReady(f"{data} was taken again while it was being stopped: {error}") from error
            time.sleep(0.1)
