"""What every process sets up before its work, and lets go of after it; `run` of each worker says only what is its own."""

import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import structlog

from ops.runtime import gc_tuning
from ops.runtime import log as logs
from ops.runtime.db import Engine, make_engine
from ops.settings import Settings, require
from ops.telemetry import probe_server, pulse
from ops.telemetry.probes import Check

_log = structlog.get_logger()


class Closable(Protocol):
    """What has to be let go of."""

    def close(self) -> None:
        """Let go of it."""


_Thing = TypeVar("_Thing", bound=Closable)


class Process:
    """One process of the system, from the settings it needs to its exit status; a context manager, for the main thread.

    At SIGTERM or SIGINT `stop` is set, and the work is to end. What was opened through it is closed in reverse order, whatever
    was raised; a process that opens its probes before its own threads keeps answering until those have ended.
    """

    def __init__(self, settings: Settings, name: str, *needed: str, thread_turn: float | None = None) -> None:
        """`name` stands in its logs; it cannot run without the settings `needed`, and then raises `Misconfigured`.

        `thread_turn`: for how many seconds one of its threads may keep the others waiting; None leaves it to Python.
        """
        require(settings, *needed)
        logs.configure(settings.log, settings.log_level, name)
        if thread_turn is not None:
            sys.setswitchinterval(thread_turn)
        self.stop = threading.Event()
        self.status = 0
        self._settings = settings
        self._at_signal: list[Callable[[], None]] = []
        self._open = ExitStack()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.__exit__(kind, error, trace)
        if error is None and self.status == 0:
            _log.info("stopped")

    def engine(self, pool_size: int, **others: Any) -> Engine:
        """Connections to Postgres; what `make_engine` takes."""
        engine = make_engine(self._settings.database_url, pool_size=pool_size, **others)
        self._open.callback(engine.dispose)
        return engine

    def closing(self, thing: _Thing) -> _Thing:
        """The thing, which is closed at the end."""
        self.at_end(thing.close)
        return thing

    def at_end(self, close: Callable[[], object]) -> None:
        """Call `close` at the end, before whatever was opened until now is closed."""
        self._open.callback(close)

    def at_signal(self, call: Callable[[], None]) -> None:
        """Call this as well when the process is to stop; at once if it is to stop already."""
        self._at_signal.append(call)
        if self.stop.is_set():
            call()

    def database(self, trouble: Check) -> Check:
        """A check: what the work says is wrong with Postgres, and else whether it answers."""
        return self.closing(pulse.of_postgres(self._settings)).with_work(trouble)

    def serve(self, checks: Mapping[str, Check]) -> Callable[[], None]:
        """Serve probes and metrics, ready while all `checks` pass. The process is alive while it calls what this gives."""
        server = self.closing(probe_server.serve(self._settings.metrics_host, self._settings.metrics_port, checks))
        self.started(metrics_port=server.port)
        return server.beat

    def started(self, **about: object) -> None:
        """All is set up. `serve` says so too."""
        _log.info("started", **about)
        gc_tuning.calm()

    def _signalled(self, *_: object) -> None:
        self.stop.set()
        for call in self._at_signal:
            call()
