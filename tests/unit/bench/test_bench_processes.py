"""What a benchmark starts ends with it."""

import sys
import time

import pytest

from ops.bench.processes import running
from ops.servers.process_tree import see
from ops.settings import environment

OBEDIENT = "import sys, time; print(file=sys.stderr, flush=True); time.sleep(60)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + OBEDIENT


def test_a_process_that_does_not_stop_is_killed_and_so_are_those_after_it(capfd) -> None:
    with running([[sys.executable, "-c", each] for each in (DEAF, OBEDIENT, DEAF)], environment(), 0.3) as processes:
        seen = [see(process.pid) for process in processes]
        wait_for_lines(capfd, 3)

    assert [False] * 3 == [each.alive() for each in seen]


def test_processes_are_ended_when_a_later_one_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr("ops.bench.processes.end_all", lambda processes, _: started.extend(processes))
    with (
        pytest.raises(FileNotFoundError),
        running([[sys.executable, "-c", OBEDIENT], ["/no/such/program"]], environment()),
    ):
        pass

    assert 1 == len(started)
    started[0].kill()
    started[0].wait(10)


def wait_for_lines(capfd, count: int) -> None:
    lines, deadline = 0, time.monotonic() + 20
    while lines < count and time.monotonic() < deadline:
        lines += capfd.readouterr().err.count("\n")
        time.sleep(0.02)
    assert count == lines
