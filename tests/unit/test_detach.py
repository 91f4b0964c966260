import subprocess
import sys
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


def test_a_supervisor_that_is_not_ready_in_time_and_does_not_stop_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    log = tmp_path / "log" / "supervisor.log"

    def deaf(_command: list[str], *others: Any, **named: Any) -> subprocess.Popen[bytes]:
        started.append(spawn([sys.executable, "-c", DEAF], *others, **named))
        assert wait_until(lambda: "deaf" in log.read_text(), 20)
        return started[0]

    monkeypatch.setattr(detach, "spawn", deaf)
    monkeypatch.setattr(detach, "_READY_SECONDS", 0.1)
    monkeypatch.setattr(detach, "_STOP_SECONDS", 0.3, raising=False)
    try:
        with pytest.raises(NotReady, match=r"^not ready after 0 s; it was stopped: see "):
            detach.up_detached(tmp_path, [])

        assert -9 == started[0].returncode
    finally:
        started[0].kill()
        started[0].wait(10)
