"""`waxseal` in a shell as a fork, which starts for a tenth of the CPU, with the shell's streams, folder and variables.

The program in `folder` is a small one that tells this process what was asked of it, and ends as the fork does.
"""

import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import Final

from ops.servers.forks import Inherited
from support.forked import Forked, begin_fork_server, take_streams

STREAMS: Final = (0, 1, 2)

_PROGRAM = """\
#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as told:
    told.connect({address!r})
    socket.send_fds(told, [b"+"], {streams})
    told.sendall(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode() + b"\\n")
    sys.exit(int(told.recv(8)))
"""


@contextmanager
def shell_commands(folder: Path) -> Iterator[Path]:
    """While the block runs, the program `waxseal` in the folder that it gives starts forks of the suite's fork server."""
    address, programs = folder / "commands", folder / "bin"
    programs.mkdir()
    program = programs / "waxseal"
    program.write_text(_PROGRAM.format(python=sys.executable, address=str(address), streams=STREAMS))
    program.chmod(0o755)
    begin_fork_server()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        accepting = Thread(target=_accept, args=(listener,), daemon=True)
        accepting.start()
        try:
            yield programs
        finally:
            program.unlink()
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()


def _accept(listener: socket.socket) -> None:
    with suppress(OSError):  # it was shut down
        while True:
            Thread(target=_run, args=(listener.accept()[0],), daemon=True).start()


def _run(asked: socket.socket) -> None:
    """Runs what was asked for; ends it when the program that asked was killed."""
    with asked:
        _, streams, _, _ = socket.recv_fds(asked, 1, len(STREAMS))
        with asked.makefile("rb") as text:
            arguments, env, folder = json.loads(text.readline())
        fork = Forked(
            *arguments, env=env, before=partial(_take, dict(zip(STREAMS, map(Inherited, streams), strict=True)), folder)
        )
        for stream in streams:
            os.close(stream)
        if asked in wait([fork.sentinel, asked]):
            fork.terminate()
        code = fork.wait()
        with suppress(BrokenPipeError):
            asked.sendall(str(code if code >= 0 else 128 - code).encode())


def _take(streams: Mapping[int, int], folder: str) -> None:
    """Makes these the process's streams, and this its folder."""
    take_streams(streams)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - as long as the process
    os.chdir(folder)
