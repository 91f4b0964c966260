"""Commands that are started as forks: what they inherit, what they tell of their end, and what names them."""

import gc
import os
import signal
from pathlib import Path
from subprocess import TimeoutExpired

import psutil
import pytest

from ops.servers.forks import Fork
from ops.servers.process_tree import wait_until
from support.forked import Forked, begin_fork_server

COLLECTS = 7


def tell_of_the_collector() -> None:
    os._exit(COLLECTS if gc.isenabled() and gc.get_freeze_count() > 10 * len(gc.get_objects()) > 0 else 1)


def test_a_fork_has_the_folder_the_environment_and_the_output_that_it_is_given(tmp_path: Path) -> None:
    begin_fork_server()
    with (tmp_path / "log").open("ab") as output:
        ended = Fork("timeline", "acme", "order-7", env={"WAXSEAL_DATABASE_URL": "none"}, folder=str(tmp_path), output=output)
        refused = Fork("no-such-command", env={}, folder=str(tmp_path), output=output)

        assert (2, 2) == (ended.wait(30), refused.wait(30))
    said = (tmp_path / "log").read_text()
    assert "WAXSEAL_DATABASE_URL" in said
    assert "No such command 'no-such-command'" in said


def test_a_fork_has_a_session_and_a_name_of_its_own_and_a_signal_that_ends_it_is_its_return_code(tmp_path: Path) -> None:
    begin_fork_server()
    log = tmp_path / "log"
    log.mkdir()
    running = Fork("log", "serve", "--port", "0", env={"WAXSEAL_LOG_FILES": str(log)}, folder=str(tmp_path))
    try:
        assert wait_until(lambda: psutil.Process(running.pid).cmdline()[0].startswith("waxseal log serve"), 30)
        assert wait_until(lambda: os.getsid(running.pid) == running.pid, 30)
        with pytest.raises(TimeoutExpired):
            running.wait(0.01)
        assert (None, None) == (running.poll(), running.returncode)
    finally:
        assert running.poll() is None
        os.kill(running.pid, signal.SIGKILL)
    assert (-signal.SIGKILL, -signal.SIGKILL) == (running.wait(30), running.returncode)


def test_a_fork_collects_garbage_but_nothing_of_what_was_imported_before_it() -> None:
    collected = Forked("--version", env={}, before=tell_of_the_collector)

    assert COLLECTS == collected.wait(30)
