"""The process that renders templates: bounded in memory and time, without secrets in its environment.

One order per line on stdin, one answer per line on stdout, both JSON, until stdin ends.
"""

import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import BinaryIO, Final

import orjson

from pipeline.delivery.template import Unrenderable, render

MEMORY: Final = 512 * 1024 * 1024  # bytes of address space
SECONDS: Final = 4  # of CPU for one order; the parent's limit is lower, so this one applies only if the parent died


def serve(orders: BinaryIO, answers: BinaryIO, watch: Callable[[int], object]) -> None:
    """Answer each order. Calls `watch` with the seconds of CPU that an order may take, and with 0 when it is done."""
    for line in orders:
        watch(SECONDS)
        try:
            answer: dict[str, str] = render(orjson.loads(line))
        except (Unrenderable, MemoryError) as error:
            answer = {"error": str(error) or "it needs too much memory"}
        watch(0)
        answers.write(orjson.dumps(answer) + b"\n")
        answers.flush()


def main() -> None:
    """Limit this process, and serve."""
    with suppress(ValueError, OSError):  # a system without this limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent ends this process
    # No handler catches the timer's signal: it ends the process. A wall-clock limit would end others on a busy machine.
    serve(sys.stdin.buffer, sys.stdout.buffer, partial(signal.setitimer, signal.ITIMER_PROF))


if __name__ == "__main__":
    main()
