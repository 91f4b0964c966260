"""Starts `waxseal` commands from a process that has imported them, as `up` does, each with a coverage of its own."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from typing import IO

import psutil
import pytest
from setproctitle import setproctitle

from measured import FOLDER
from ops.servers.forks import Fork, Inherited, preload, run_command
from ops.servers.process_tree import die_with_parent
from ops.settings import environment, replace_environment
from ops.system.roles import IMPORTED

Before = Callable[[], None] | None


def run_measured(before: Before, arguments: Sequence[str], env: Mapping[str, str], folder: str | None, output: int) -> None:
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    if FOLDER in env and before is None:  # what is imported already cannot be measured
        os.setsid()
        die_with_parent(signal.SIGTERM)
        os.execve(sys.executable, [sys.executable, "-m", "ops.cli", *arguments], {**env})
    if before is not None:
        before()
    run_command(arguments, env, folder, None)


def begin_fork_server() -> None:
    """Starts the fork server unless it runs; it is not measured."""
    if "ensure_running" in vars(forkserver._forkserver):  # type: ignore[attr-defined]
        return  # it is shared
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(FOLDER, raising=False)
        preload(IMPORTED)


def share_fork_server() -> None:
    """Starts the fork server for this process and its forks: each would start one, for 2 s of CPU, as it is not its parent."""
    terminal = os.dup(1)
    with Path(os.devnull).open("wb") as nowhere:  # for what is started without an output
        os.dup2(nowhere.fileno(), 1)
    begin_fork_server()
    os.dup2(terminal, 1)
    os.close(terminal)
    forkserver._forkserver.ensure_running = lambda: None  # type: ignore[attr-defined]


class Forked(Fork):
    """`before` is called in its process first. Without an `output` it writes to that of the test that starts it."""

    def __init__(self, *arguments: str, env: Mapping[str, str], before: Before = None, output: IO[bytes] | None = None) -> None:
        begin_fork_server()
        self.target = partial(run_measured, before)
        with os.fdopen(os.dup(1), "wb") as ours:
            super().__init__(*arguments, env=env, output=output or ours)

    @property
    def sentinel(self) -> int:
        """What `multiprocessing.connection.wait` waits for until it ends."""
        return self._process.sentinel

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run_program(arguments: Sequence[str], env: Mapping[str, str]) -> None:
    """What `python arguments` does, in the process that was forked for it: for `-m` and `-c`."""
    kind, program, *more = arguments
    setproctitle(f"python {kind} {program}")
    multiprocessing.current_process().daemon = False  # it may start processes
    os.setsid()
    die_with_parent(signal.SIGTERM)
    replace_environment(env)
    sys.argv = [program if kind == "-m" else kind, *more]
    if kind == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        exec(program, {"__name__": "__main__"})
    sys.exit()


def run_held(arguments: Sequence[str], env: Mapping[str, str], held: int) -> None:
    """The same; it says nothing more afterwards, and ends when the other end of `held` is closed.

    Until then its CPU can be read, as that of a `Popen` that has ended but was not waited for.
    """
    try:
        run_program(arguments, env)
    finally:
        sys.stdout.flush()
        with Path(os.devnull).open("wb") as nowhere:
            for stream in (1, 2):
                os.dup2(nowhere.fileno(), stream)
        os.read(held, 1)


def take_streams(streams: Mapping[int, int], then: Before = None) -> None:
    """Makes the descriptors the streams of these numbers of the process that was forked, and calls `then`."""
    for number, stream in streams.items():
        os.dup2(stream, number)
        os.close(stream)
    if then is not None:
        then()


class ForkedCommand(Forked):
    """A command whose output and complaints are read, as those of a `Popen[str]`."""

    def __init__(self, *arguments: str, env: Mapping[str, str], before: Before = None) -> None:
        (reading, output), (reading_more, complaints) = os.pipe(), os.pipe()
        self.stdout, self.stderr = os.fdopen(reading), os.fdopen(reading_more)
        try:
            streams = {1: Inherited(output), 2: Inherited(complaints)}
            super().__init__(*arguments, env=env, before=partial(take_streams, streams, before))
        finally:
            os.close(output)
            os.close(complaints)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Reads what it still says, and waits until it ends; it is killed when that takes longer. Nothing the second time."""
        if self.stdout.closed:
            return "", ""
        with self.stdout, self.stderr, ThreadPoolExecutor(2) as pool:
            said, complained = pool.submit(self.stdout.read), pool.submit(self.stderr.read)
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            return said.result(), complained.result()


class ForkedProcess(psutil.Process):
    """A command that was started as a fork, as a benchmark looks at one: the CPU and memory of a process, and how it ended.

    `python` is what follows that name in the command of another program, `arguments` are those of one of ours.
    """

    def __init__(
        self,
        *arguments: str,
        env: Mapping[str, str],
        python: Sequence[str] = (),
        output: IO[bytes] | None = None,
        held: int | None = None,
    ) -> None:
        before = partial(run_program, python, dict(env)) if python else None
        if held is not None:
            before = partial(run_held, python, dict(env), Inherited(held))
        with Path(os.devnull).open("wb") as nowhere:
            self._fork = Forked(*arguments, env=env, before=before, output=output or nowhere)
        super().__init__(self._fork.pid)

    def poll(self) -> int | None:
        return self._fork.poll()

    def wait(self, timeout: float | None = None) -> int:
        return self._fork.wait(timeout)


class TellingProcess(ForkedProcess):
    """The same, whose output is read while it runs."""

    def __init__(self, python: Sequence[str], env: Mapping[str, str]) -> None:
        (reading, writing), (held, self._holding) = os.pipe(), os.pipe()
        self.stdout = os.fdopen(reading)
        with os.fdopen(writing, "wb") as output, os.fdopen(held):
            super().__init__(env=env, python=python, output=output, held=held)

    def wait(self, timeout: float | None = None) -> int:
        if self._holding >= 0:
            os.close(self._holding)
            self._holding = -1
        return super().wait(timeout)


def ended(command: Sequence[str], seconds: float | None = None) -> "subprocess.CompletedProcess[str]":
    """As that of the benchmarks' processes; the program is a fork."""
    with tempfile.TemporaryFile() as output:
        code = ForkedProcess(env=environment(), python=command[1:], output=output).wait(seconds)
        output.seek(0)
        said = output.read().decode()
    return subprocess.CompletedProcess(command, code, said, said)
