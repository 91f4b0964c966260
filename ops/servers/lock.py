"""One owner per data folder: a lock that the kernel frees however its holder ends."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ops.errors import AlreadyRunning
from ops.servers.accounts import make_folder
from ops.servers.process_tree import wait_until

FILE = "lock"
_LOOKED_AT_SECONDS: Final = 0.5  # `owner` holds the lock for an instant only


@contextmanager
def sole_owner(data: Path) -> Iterator[None]:
    """Own the data folder while the block runs. Raises `AlreadyRunning`, with the owner's pid, when another does."""
    make_folder(data)
    descriptor = os.open(data / FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not wait_until(lambda: _taken(descriptor, fcntl.LOCK_EX), _LOOKED_AT_SECONDS):
            raise AlreadyRunning(
                f"waxseal is already running on {data} (pid {_pid_in(descriptor)}): "
                f"stop it with `waxseal down --data {data}`, or use another --data"
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def owner(data: Path) -> int | None:
    """Give the pid of the process that owns the data folder; None when none does."""
    try:
        descriptor = os.open(data / FILE, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        # Shared, so that two that look do not take each other for the owner, and the pid of a killed one for its.
        return None if _taken(descriptor, fcntl.LOCK_SH) else _pid_in(descriptor)
    finally:
        os.close(descriptor)


def _taken(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid_in(descriptor: int) -> int | None:
    for _ in range(20):  # the owner writes its pid an instant after it took the lock
        text = os.pread(descriptor, 20, 0).decode().strip()
        if text:
            return int(text)
        time.sleep(0.05)
    return None
