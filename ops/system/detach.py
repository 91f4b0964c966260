"""`waxseal up --detach`: a supervisor in a session of its own, that outlives the terminal."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ops.errors import NotReady
from ops.servers.child import last_error, open_log
from ops.servers.lock import sole_owner
from ops.servers.process_tree import end, see, spawn, wait_until
from ops.servers.state_file import check_path
from ops.settings import environment
from ops.system.stack_file import FIRST, read_stack

_READY_SECONDS: Final = 300.0
_STOP_SECONDS: Final = 120.0  # as `waxseal down` gives it


def up_detached(data: Path, arguments: Sequence[str]) -> str:
    """Start `waxseal up` with these arguments in the background, wait until all is ready, and give a line with its address.

    Raises `AlreadyRunning`, or `NotReady` with the supervisor's reason. When it raises, the supervisor has ended.
    """
    check_path(data)
    with sole_owner(data):
        log = data / "log" / "supervisor.log"
    with open_log(log) as output:
        begins = output.tell()
        command = [sys.executable, "-m", "ops.cli", "up", "--data", str(data), *arguments]
        process = spawn(command, environment(), folder=str(Path.cwd()), output=output, at_our_death=None)
    try:
        done = wait_until(lambda: process.poll() is not None or _is_ready(data, process.pid), _READY_SECONDS)
    except BaseException:  # Ctrl-C: `down` could not stop a supervisor that has not yet taken the folder
        _end(process)
        raise
    if not done:
        _end(process)
        raise NotReady(f"not ready after {_READY_SECONDS:.0f} s; it was stopped: see {log}")
    if process.poll() is not None:
        raise NotReady(last_error(log, begins) or f"the supervisor ended (log: {log})")
    known = read_stack(data) or {}
    token = f"; the console's first token: {data / FIRST}" if (data / FIRST).exists() else ""
    return f"ready: {known['ingress_url']}  (all addresses: {data / 'stack.json'}{token}; stop: waxseal down --data {data})"


def _end(process: subprocess.Popen[bytes]) -> None:
    if supervisor := see(process.pid):
        end({supervisor: signal.SIGTERM}, _STOP_SECONDS)
    process.wait(10)


def _is_ready(data: Path, pid: int) -> bool:
    known = read_stack(data)
    return bool(known and known["ready"] and known["pids"].get("supervisor") == [pid])
