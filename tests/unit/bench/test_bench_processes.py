"""What a benchmark starts ends with it."""

import sys
from pathlib import Path

import pytest

from ops.bench.processes import running
from ops.servers.process_tree import see
from ops.settings import environment
from support.waiting import wait_for

OBEDIENT = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1], str(os.getpid())).touch(); time.sleep(60)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + OBEDIENT


def test_a_process_that_does_not_stop_is_killed_and_so_are_those_after_it(tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", each, str(tmp_path)] for each in (DEAF, OBEDIENT, DEAF)]
    with running(commands, environment(), 0.3) as processes:
        seen = [see(process.pid) for process in processes]
        wait_for(lambda: len(list(tmp_path.iterdir())) == 3)

    assert [False] * 3 == [each.alive() for each in seen]


def test_processes_are_ended_when_a_later_one_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr("ops.bench.processes.end_all", lambda processes, _: started.extend(processes))
    with (
        pytest.raises(FileNotFoundError),
        running([[sys.executable, "-c", OBEDIENT, str(tmp_path)], ["/no/such/program"]], environment()),
    ):
        pass

    assert 1 == len(started)
    started[0].kill()
    started[0].wait(10)
