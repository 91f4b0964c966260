"""One owner per data folder: a lock that the kernel frees however its holder ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ops.errors import AlreadyRunning
from ops.memory import make_folder


@contextmanager
def sole_owner(data: Path) -> Iterator[None]:
    """Own the data folder while the block runs. Raises `AlreadyRunning`, with the owner's pid, when another does."""
    make_folder(data)
    descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(descriptor, 20).decode().strip() or "unknown"
            raise AlreadyRunning(
                f"waxseal is already running on {data} (pid {pid}): stop it with `waxseal down --data {data}`, "
                "or use another --data"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        with suppress(OSError):
            os.close(descriptor)
