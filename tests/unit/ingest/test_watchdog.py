"""The watchdog of the thread that admits messages; each test runs it in a process of its own."""

import signal
import subprocess
import sys

import pytest

PREAMBLE = """
import atexit, collections, itertools, sys, time
from workers.ingest.watchdog import TooSlow, Watch

def burn(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(10_000))

watch = Watch(soft=0.25, hard=float(sys.argv[1]))
watch.install()
atexit.register(watch.close)
"""


def run(program: str, hard: float) -> tuple[int, str, str]:
    """Runs the program, in which a watchdog ends the process after `hard` seconds without progress."""
    command = [sys.executable, "-c", PREAMBLE + program, str(hard)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return ended.returncode, ended.stdout, ended.stderr


def test_work_that_takes_long_is_broken_off_and_other_work_is_not() -> None:
    program = """
for seconds in (0.1, 0.1, 9, 0.1):
    watch.progress()
    try:
        watch.run(burn, seconds)
        print("done")
    except TooSlow:
        print("too slow")
burn(0.6)  # of nobody's
print("ended")
"""
    # A message is put aside within 0.75 s, and 0.2 s may have passed before it.
    assert (0, "done\ndone\ntoo slow\ndone\nended\n", "") == run(program, hard=2.0)


@pytest.mark.parametrize("stuck", ["collections.deque(itertools.count(), maxlen=0)", "burn(9)"], ids=["in C", "in Python"])
def test_a_process_without_progress_ends_and_prints_where_it_was(stuck: str) -> None:
    code, _, printed = run(stuck, hard=0.4)

    assert -signal.SIGPROF == code
    assert "most recent call first" in printed


def test_a_process_that_goes_on_or_that_waits_is_not_ended_however_long() -> None:
    program = """
for _ in range(8):
    burn(0.1)
    watch._next = 0.0  # as if half a second had passed
    watch.progress()
time.sleep(0.7)
print("ended")
"""
    assert (0, "ended\n", "") == run(program, hard=0.5)


def test_a_process_that_has_closed_its_watchdog_is_ended_by_no_timer() -> None:
    program = """
watch.close()
watch.progress()
burn(0.7)
print("ended")
"""
    assert (0, "ended\n", "") == run(program, hard=0.5)
