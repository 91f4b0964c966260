"""Starts `waxseal` commands from a process that has imported them, as `up` does, each with a coverage of its own."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pytest

from ops.servers.forks import Fork, preload, run_command
from ops.system.roles import IMPORTED

COVERAGE = ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START")
Before = Callable[[], None] | None


def run_covered(before: Before, arguments: Sequence[str], env: Mapping[str, str], *others: object) -> None:
    for name in COVERAGE:
        if name in env:
            os.environ[name] = env[name]
    if any(name in env for name in COVERAGE):
        import coverage

        coverage.process_startup()
    if before is not None:
        before()
    run_command(arguments, env, *others)


def begin_fork_server() -> None:
    """Starts the fork server unless it runs; it is not traced itself."""
    with pytest.MonkeyPatch.context() as patch:
        for name in COVERAGE:
            patch.delenv(name, raising=False)
        preload(IMPORTED)


class Forked(Fork):
    """`before` is called in its process first."""

    def __init__(self, *arguments: str, env: Mapping[str, str], before: Before = None) -> None:
        begin_fork_server()
        self.target = partial(run_covered, before)
        super().__init__(*arguments, env=env)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
