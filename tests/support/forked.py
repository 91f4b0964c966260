"""Starts `waxseal` commands from a process that has imported the workers: a start costs a twentieth of a new interpreter's."""

import atexit
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from multiprocessing import forkserver

import pytest

IMPORTED = [
    "ops.cli",
    "workers.delivery.worker",
    "workers.ingest.worker",
    "workers.ingress.worker",
    "workers.mail.idle.worker",
    "workers.mail.pull.worker",
    "workers.relay.worker",
    "workers.sealer.worker",
    "workers.sequencer.worker",
]
COVERAGE = ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START")

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(IMPORTED)


class Forked:
    """A running command, with the methods and the return codes of `subprocess.Popen`.

    `before` is called in its process first.
    """

    def __init__(self, *arguments: str, env: Mapping[str, str], before: Callable[[], None] | None = None) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for name in COVERAGE:
                patch.delenv(name, raising=False)
            forkserver.ensure_running()  # not traced itself: each command starts coverage of its own
        self.args = arguments
        self._process = _forks.Process(target=_run, args=(arguments, dict(env), before), daemon=True)
        self._process.start()
        self.pid: int = self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(list(self.args), timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _run(arguments: tuple[str, ...], env: dict[str, str], before: Callable[[], None] | None) -> None:
    os.environ.clear()
    os.environ.update(env)
    if any(name in env for name in COVERAGE):
        import coverage

        coverage.process_startup()
    if before is not None:
        before()
    sys.argv = ["waxseal", *arguments]
    from ops.cli import main

    try:
        main(prog_name="waxseal")
    finally:
        atexit._run_exitfuncs()  # multiprocessing ends its processes without them
