"""The supervisor restarts processes that die, with growing delays."""

import errno
import os
import signal
import sys
import time
from pathlib import Path
from subprocess import SubprocessError

import psutil
import pytest

from ops.errors import NotReady
from ops.servers.child import Child, stop, wait_ready
from ops.servers.process_tree import see
from ops.settings import environment
from ops.system.crash_loops import CrashLoops
from ops.system.supervisor import Backoff, Supervisor
from ops.telemetry import table

pytestmark = pytest.mark.slow


class Enough(Exception):
    pass


def child(folder: Path, program: str) -> Child:
    return Child(
        name="worker",
        role="worker",
        command=[sys.executable, "-c", program],
        environment=environment(),
        log=folder / "worker.log",
        folder=folder,
        ready=lambda: True,
    )


def watch(supervisor: Supervisor, until, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds

    def interrupted() -> None:
        if until() or time.monotonic() > deadline:
            raise Enough

    with pytest.raises(Enough):
        supervisor.run(interrupted)


def test_waits_double_up_to_half_a_minute_and_begin_anew_after_a_minute_alive() -> None:
    backoff = Backoff()

    assert [0.5, 1, 2, 4, 8, 16, 30, 30] == [backoff.next(lived=1) for _ in range(8)]
    assert [0.5, 1] == [backoff.next(lived=61), backoff.next(lived=1)]


def test_a_killed_process_is_restarted_counted_and_told_of(tmp_path: Path) -> None:
    worker, changes = child(tmp_path, "import time; time.sleep(60)"), []
    worker.role = "relay"
    counted = table.PROCESS_RESTARTS.labels("relay")._value.get()
    worker.start()
    first = worker.pid
    os.kill(first, signal.SIGKILL)
    try:
        watch(Supervisor([worker], lambda: changes.append(worker.pid)), lambda: changes)

        assert [worker.pid] == changes
        assert worker.running
        assert first != worker.pid
        assert counted + 1 == table.PROCESS_RESTARTS.labels("relay")._value.get()
    finally:
        stop([worker], 5)


def test_every_end_is_counted_and_told_with_how_it_was(tmp_path: Path) -> None:
    worker, ends = child(tmp_path, "print('Error: plug it in', flush=True); raise SystemExit(3)"), []
    worker.start()
    watch(Supervisor([worker], lambda: None, lambda name, how, _now: ends.append((name, how))), lambda: len(ends) == 2)

    how = f"worker exited with 3: plug it in (log: {worker.log})"
    assert [("worker", how)] * 2 == ends
    assert (1, how) == (worker.restarts, worker.last_end)


def test_five_ends_within_five_minutes_are_a_crash_loop_told_once_an_hour() -> None:
    told: list[str] = []
    loops = CrashLoops(told.append)
    for second in (0, 1, 2, 3):
        loops.ended("ingest", "exited with 1", second)
        loops.ended("relay", "exited with 1", second * 100)
    assert [] == told

    loops.ended("relay", "exited with 1", 401)
    assert [] == told
    for second in range(4, 3700, 30):
        loops.ended("ingest", "exited with 1", second)
    assert [
        "ingest ended 5 times within 4 s, last: exited with 1",
        "ingest ended 5 times within 120 s, last: exited with 1",
    ] == told


def test_a_program_that_is_gone_is_tried_again_later(tmp_path: Path) -> None:
    worker = child(tmp_path, "pass")
    worker.start()
    worker.command = [str(tmp_path / "gone")]
    watch(Supervisor([worker], lambda: None), lambda: False, seconds=1.2)

    assert not worker.running


@pytest.mark.parametrize(
    "error", [SubprocessError("Exception occurred in preexec_fn."), psutil.AccessDenied(1), RuntimeError()]
)
def test_a_process_that_cannot_be_started_for_any_reason_is_tried_again(tmp_path: Path, error: Exception) -> None:
    worker = child(tmp_path, "import time; time.sleep(60)")
    worker.start()
    failures = [error]

    def clear() -> None:
        if failures:
            raise failures.pop()

    worker.clear = clear
    kill_and_see_restarted(worker)


def kill_and_see_restarted(worker: Child) -> None:
    changes: list[int] = []
    os.kill(worker.pid, signal.SIGKILL)
    try:
        watch(Supervisor([worker], lambda: changes.append(worker.pid)), lambda: changes)

        assert worker.running
    finally:
        stop([worker], 5)


def test_a_restart_that_cannot_be_told_of_is_told_of_later(tmp_path: Path) -> None:
    worker, told = child(tmp_path, "import time; time.sleep(60)"), []

    def changed() -> None:
        told.append(worker.pid)
        if len(told) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    worker.start()
    os.kill(worker.pid, signal.SIGKILL)
    try:
        watch(Supervisor([worker], changed), lambda: len(told) > 1)

        assert [worker.pid] * 2 == told
    finally:
        stop([worker], 5)


def test_a_process_whose_log_was_removed_is_restarted(tmp_path: Path) -> None:
    worker = child(tmp_path, "import time; time.sleep(60)")
    worker.start()
    worker.log.unlink()
    kill_and_see_restarted(worker)


def test_stop_kills_what_does_not_listen_and_all_it_started(tmp_path: Path) -> None:
    deaf = child(
        tmp_path,
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True); time.sleep(60)",
    )
    deaf.start()
    wait_for_output(deaf.log)
    family = [see(int(deaf.log.read_text())), see(deaf.pid)]
    stop([deaf], 0.3)

    assert not deaf.running
    assert [False, False] == [member.alive() for member in family]


def test_waiting_for_a_process_that_dies_says_how_it_died_and_what_it_said(tmp_path: Path) -> None:
    worker = child(tmp_path, "import sys; sys.exit('Error: no key')")
    worker.ready = lambda: False
    worker.start()

    with pytest.raises(NotReady, match=r"^worker exited with 1: no key \(log: .*worker\.log\)$"):
        wait_ready([worker], 10)


def test_waiting_for_a_process_that_stays_silent_ends(tmp_path: Path) -> None:
    worker = child(tmp_path, "import time; time.sleep(60)")
    worker.ready = lambda: False
    worker.start()
    try:
        with pytest.raises(NotReady, match="not ready after 0 s: worker does not answer"):
            wait_ready([worker], 0.2)
    finally:
        stop([worker], 5)


def test_each_process_is_asked_until_it_is_ready_and_only_the_late_ones_are_named(tmp_path: Path) -> None:
    asked = []
    late, early = (child(tmp_path, "import time; time.sleep(60)") for _ in range(2))
    late.name, late.ready = "late", lambda: bool(asked.append("late"))
    early.ready = lambda: asked.append("early") is None
    late.start()
    early.start()
    try:
        with pytest.raises(NotReady, match=r"^not ready after 0 s: late does not answer [^;]*$"):
            wait_ready([early, late, early], 0.2)
    finally:
        stop([late, early], 5)
    assert ["early", "late"] == asked[:2]
    assert {"late"} == set(asked[1:-1])


def wait_for_output(log: Path) -> None:
    deadline = time.monotonic() + 60
    while not log.read_text().endswith("\n") and time.monotonic() < deadline:
        time.sleep(0.02)
