"""Stopping a server as a machine that stands still would: it keeps its connections, and answers nothing."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stops the process and its children until the block ends."""
    head = psutil.Process(pid)
    family = [head, *head.children(recursive=True)]
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGCONT)
