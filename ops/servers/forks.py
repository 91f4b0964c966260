"""Starts `waxseal` commands as forks of a process that has imported them: a start takes a tenth of a new interpreter's time.

That process is the fork server of `multiprocessing`. It has no threads, and none of our files, locks and connections. It ends
with us, and the kernel then sends SIGTERM to what it forked.
"""

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver, reduction
from subprocess import TimeoutExpired
from typing import IO, Any, Final

from setproctitle import setproctitle

from ops.servers.process_tree import die_with_parent
from ops.settings import replace_environment

_context: Final = multiprocessing.get_context("forkserver")


def preload(modules: Sequence[str]) -> None:
    """Begin to import `modules` in the fork server, and return at once. Only the first call has an effect."""
    _context.set_forkserver_preload(["ops.servers.fork_server_start", *modules, "ops.servers.fork_server"])
    forkserver.ensure_running()


def run_command(arguments: Sequence[str], env: Mapping[str, str], folder: str | None, output: int | None) -> None:
    """Run `waxseal arguments` in the process that was forked for it, in a session of its own."""
    from ops.servers import fork_server  # noqa: PLC0415 - for the fork server and what it forks

    setproctitle(" ".join(("waxseal", *arguments)))  # before the environment changes, which it looks for
    os.setsid()
    die_with_parent(signal.SIGTERM)
    if os.getppid() != fork_server.PID:  # the fork server ended before that took effect
        os._exit(1)
    if folder is not None:
        os.chdir(folder)
    if output is not None:
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
    replace_environment(env)
    sys.argv = ["waxseal", *arguments]
    runpy.run_module("ops.cli", run_name="__main__", alter_sys=True)


class Fork:
    """A `waxseal` command that was started as a fork, with the methods and return codes of `subprocess.Popen`."""

    target: Callable[..., None] = staticmethod(run_command)

    def __init__(
        self, *arguments: str, env: Mapping[str, str], folder: str | None = None, output: IO[bytes] | None = None
    ) -> None:
        """Start `waxseal arguments` with this environment. The fork server's folder and output are the defaults."""
        self.args = arguments
        told = (arguments, dict(env), folder, None if output is None else Inherited(output.fileno()))
        self._process = _context.Process(target=self.target, args=told, daemon=True)
        self._process.start()
        self.pid: int = self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        """How it ended: negative if by a signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Give `returncode`."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends. Raises `subprocess.TimeoutExpired`."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise TimeoutExpired(self.args, timeout or 0.0)
        return code


class Inherited:
    """A descriptor of ours of which the fork gets one of its own, when this is among what it is told."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> Any:
        return _descriptor, (reduction.DupFd(self._descriptor),)


def _descriptor(sent: Any) -> int:
    return int(sent.detach())
