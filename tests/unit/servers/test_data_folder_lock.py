import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ops.errors import AlreadyRunning
from ops.servers import lock
from ops.servers.lock import FILE, owner, sole_owner


@contextmanager
def owner_looks(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """While the block runs, a call of `owner` in another thread holds the lock, until it is told to go on."""
    holds, go_on = threading.Event(), threading.Event()
    flock = fcntl.flock

    def hold(descriptor: int, operation: int) -> None:
        flock(descriptor, operation)
        if threading.current_thread() is thread:
            holds.set()
            go_on.wait(10)

    monkeypatch.setattr(fcntl, "flock", hold)
    thread = threading.Thread(target=owner, args=[data])
    thread.start()
    try:
        assert holds.wait(10)
        yield go_on
    finally:
        go_on.set()
        thread.join(10)


def test_a_folder_can_be_taken_although_another_process_asks_for_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_LOOKED_AT_SECONDS", 10.0, raising=False)
    (tmp_path / FILE).touch()
    with owner_looks(tmp_path, monkeypatch) as go_on:
        threading.Timer(0.1, go_on.set).start()
        with sole_owner(tmp_path):
            assert os.getpid() == owner(tmp_path)
    assert owner(tmp_path) is None


def test_two_that_ask_for_the_owner_do_not_take_a_killed_one_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FILE).write_text("12345\n")
    with owner_looks(tmp_path, monkeypatch):
        assert owner(tmp_path) is None


def test_a_folder_that_has_an_owner_is_refused_with_its_pid(tmp_path: Path) -> None:
    with (
        sole_owner(tmp_path),
        pytest.raises(AlreadyRunning, match=rf"already running on {tmp_path} \(pid {os.getpid()}\)"),
        sole_owner(tmp_path),
    ):
        pass
