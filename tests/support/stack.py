"""A whole system on a data folder: commands on it, what its stack.json says, and whether anything runs there."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from click.testing import CliRunner, Result

from ops.cli import main
from ops.servers.leftovers import end_leftovers
from ops.servers.process_tree import SeenProcess
from ops.servers.state_file import peek
from ops.settings import environment
from support.forked import ForkedCommand

WAXSEAL = [sys.executable, "-m", "ops.cli"]

#: A worker that starts at once and is always ready.
READY = """
import contextlib, os, socket
with socket.create_server(("127.0.0.1", int(os.environ["WAXSEAL_INGRESS_PORT"]))) as server:
    while True:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
"""


def waxseal(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Runs a command in a process of its own."""
    known = environment() | settings
    return subprocess.run([*WAXSEAL, *arguments], capture_output=True, text=True, timeout=170, check=False, env=known)


def here(*arguments: str, **settings: str) -> Result:
    """Runs a command in this process, which is cheaper."""
    return CliRunner().invoke(main, arguments, env=settings)


def only_a_stand_in(program: str) -> None:
    """Has `up` in this process start one worker, an ingress that is this program."""
    from ops.system import roles, up

    up.IMPORTED = roles.IMPORTED = ()  # type: ignore[misc]
    roles.full_crew = lambda _workers=1: [roles.Post("ingress", "ingress", (sys.executable, "-c", program))]


@contextmanager
def up_with(worker: str, folder: Path) -> Iterator[ForkedCommand]:
    """`waxseal up` in the foreground, with the program `worker` in place of all workers; what is left is killed."""
    process = ForkedCommand("up", "--data", str(folder), env=environment(), before=partial(only_a_stand_in, worker))
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def stack_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "stack.json").read_text())


def processes_of(stack: dict[str, Any]) -> list[SeenProcess]:
    return [SeenProcess(int(pid), started) for pid, started in stack["started"].items()]


def named_after(folder: Path) -> list[str]:
    """The command lines that name the folder."""
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if str(folder) in line]


def nothing_runs_on(folder: Path) -> bool:
    memory = peek(folder)
    return not named_after(folder) and (memory is None or end_leftovers(*memory.workplaces) == 0)
