"""Stopping a server as a machine that stands still would: it keeps its connections, and answers nothing."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from support.waiting import wait_for


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stops the process and its children until the block ends. All of their threads have stopped when it begins."""
    head = psutil.Process(pid)
    family = [head, *head.children(recursive=True)]
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGSTOP)
    try:
        wait_for(lambda: all(_stands_still(one.pid) for one in family))
        yield
    finally:
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGCONT)


def _stands_still(pid: int) -> bool:
    """Whether no thread of the process runs: on a busy machine some do for a while after the signal."""
    try:
        return all(stat.read_text().rpartition(")")[2].split()[0] in "TZX" for stat in Path(f"/proc/{pid}/task").glob("*/stat"))
    except OSError:
        return False
