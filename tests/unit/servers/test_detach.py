import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.errors import NotReady
from ops.servers.process_tree import spawn, wait_until
from ops.system import detach

DEAF = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""


@pytest.fixture
def supervisors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Those that were started: each ignores SIGTERM, and never takes the folder."""
    started: list[subprocess.Popen[bytes]] = []
    log = tmp_path / "log" / "supervisor.log"

    def deaf(_command: list[str], *others: Any, **named: Any) -> subprocess.Popen[bytes]:
        started.append(spawn([sys.executable, "-c", DEAF], *others, **named))
        assert wait_until(lambda: "deaf" in log.read_text(), 20)
        return started[0]

    monkeypatch.setattr(detach, "spawn", deaf)
    monkeypatch.setattr(detach, "_STOP_SECONDS", 0.3)
    yield started
    for process in started:
        process.kill()
        process.wait(10)


def test_a_supervisor_that_is_not_ready_in_time_and_does_not_stop_is_killed(
    supervisors: list[subprocess.Popen[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detach, "_READY_SECONDS", 0.1)

    with pytest.raises(NotReady, match=r"^not ready after 0 s; it was stopped: see "):
        detach.up_detached(tmp_path, [])

    assert -9 == supervisors[0].returncode


def test_a_supervisor_is_ended_when_ctrl_c_comes_before_it_is_ready(
    supervisors: list[subprocess.Popen[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(detach, "wait_until", interrupted)
    with pytest.raises(KeyboardInterrupt):
        detach.up_detached(tmp_path, [])

    assert -9 == supervisors[0].returncode
