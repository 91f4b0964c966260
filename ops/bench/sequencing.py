"""What a sequencer costs beside an ingest: its own CPU and that of its Postgres sessions, for each position that it gives."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import psutil
from sqlalchemy import Connection

from ops.bench.measuring.cpu import cpu_seconds
from ops.bench.processes import running
from ops.errors import OpsError
from pipeline.store.admin import inspection
from pipeline.store.log import pending

POLL: Final = 0.05
START: Final = 30.0  # seconds

_Ask = Callable[[Callable[[Connection], Any]], Any]


class Sequencing:
    """A running sequencer, of which the CPU and the positions are read when it is asked."""

    def __init__(self, ask: _Ask, process: psutil.Process) -> None:
        """Returns when the sequencer is connected. `ask` asks its database."""
        self._ask, self._process = ask, process
        deadline = time.monotonic() + START
        while not self._sessions():
            if time.monotonic() > deadline or not process.is_running():
                raise OpsError("the sequencer did not start")
            time.sleep(POLL)
        self.begin()
        self._launched = self._began

    def begin(self) -> None:
        """Count from here on."""
        self._connected = self._sessions()
        self._began = self._read()

    def postgres(self) -> float:
        """The seconds of CPU that its Postgres sessions have used since `begin`."""
        return self._read()[1] - self._began[1]

    def end(self, deadline: float) -> dict[str, float]:
        """Wait until nothing is pending; microseconds of CPU for each position since `begin`."""
        while (sizes := self._ask(pending.sizes))[1]:
            if time.monotonic() > deadline:
                raise OpsError(f"sequencer: {sizes[1]} entries are still pending")
            time.sleep(POLL)
        ended = self._read()
        began = self._began if ended[2] > self._began[2] else self._launched  # so few that all had theirs when it was called
        process, sessions, leaves = (now - before for now, before in zip(ended, began, strict=True))
        return {"sequencer_cpu_us": process / leaves * 1e6, "sequencer_postgres_cpu_us": sessions / leaves * 1e6}

    def _read(self) -> tuple[float, float, int]:
        return cpu_seconds(self._process), sum(map(cpu_seconds, self._connected)), self._ask(pending.sizes)[0]

    def _sessions(self) -> list[psutil.Process]:
        ports = [each.laddr.port for each in self._process.net_connections("tcp") if each.raddr]
        return [psutil.Process(pid) for pid in self._ask(lambda conn: inspection.backends(conn, ports))]


@contextmanager
def sequencing(command: list[str], env: dict[str, str], ask: _Ask) -> Iterator[Sequencing]:
    """Run a sequencer while the block runs."""
    with running([command], env) as (process,):
        yield Sequencing(ask, process)
