"""The set-up and shutdown that all processes share; the `run` of each worker adds only what is specific to it."""

import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

import structlog

from ops.runtime import gc_tuning
from ops.runtime import log as logs
from ops.runtime.connection_name import CONNECTION_NAME
from ops.runtime.db import Engine, make_engine
from ops.settings import Settings, require
from ops.telemetry import probe_server, pulse
from ops.telemetry.exposition import EXPOSITION
from ops.telemetry.pools import POOLS
from ops.telemetry.probes import Check
from ops.telemetry.tracing import switch as tracing

_LOOK: Final = 1.0  # seconds

_log = structlog.get_logger()


class Closable(Protocol):
    """A resource that has to be released."""

    def close(self) -> None:
        """Release it."""


_Thing = TypeVar("_Thing", bound=Closable)


class Process:
    """One process of the system, from the settings it needs to its exit status; a context manager, for the main thread.

    SIGTERM and SIGINT set `stop`, at which the work must end. What was opened through it is closed in reverse order, also after
    an exception; a process that opens its probes before its own threads keeps answering them until those threads have ended.
    """

    def __init__(self, settings: Settings, name: str, *needed: str, switch_interval: float | None = None) -> None:
        """`name` labels its logs. Raises `Misconfigured` when one of the settings `needed` is missing.

        `switch_interval`: seconds after which a thread must yield the GIL to a waiting one; None keeps Python's default.
        """
        require(settings, *needed)
        logs.configure(settings.log, settings.log_level, name)
        EXPOSITION.of(name)
        CONNECTION_NAME.of(name)
        if switch_interval is not None:
            sys.setswitchinterval(switch_interval)
        self.stop = threading.Event()
        self.status = 0
        self._settings = settings
        self._at_signal: list[Callable[[], None]] = []
        self._open = ExitStack()
        self._open.callback(EXPOSITION.of, None)
        self._open.callback(CONNECTION_NAME.of, None)
        tracing.start(name)
        self._open.callback(tracing.stop)  # after everything else has ended
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.__exit__(kind, error, trace)
        if error is None and self.status == 0:
            _log.info("stopped")

    def engine(self, pool_size: int, *, session: bool = False, **others: Any) -> Engine:
        """Make an engine with `make_engine`'s options; its connections are closed at the end.

        Behind a pooler each transaction has a connection of its own. What listens or keeps a lock beyond its transaction needs
        a `session`; so do all options but the connections' class.
        """
        pooled = bool(self._settings.database_direct_url) and not (session or others.keys() - {"connections"})
        url = self._settings.database_url if pooled else self._settings.direct_url
        engine = make_engine(url, pool_size=pool_size, pooled=pooled, **others)
        self._open.callback(engine.dispose)
        POOLS.watch(engine)
        self._open.callback(POOLS.forget, engine)
        return engine

    def closing(self, thing: _Thing) -> _Thing:
        """Close `thing` at the end; gives `thing`."""
        self.at_end(thing.close)
        return thing

    def at_end(self, close: Callable[[], object]) -> None:
        """Call `close` at the end, before everything that was opened earlier is closed."""
        self._open.callback(close)

    def at_signal(self, call: Callable[[], None]) -> None:
        """Call `call` too when the stop signal arrives; at once if it has arrived already."""
        self._at_signal.append(call)
        if self.stop.is_set():
            call()

    def database(self, trouble: Check) -> Check:
        """A readiness check of Postgres: the `trouble` that the work reports, or else whether Postgres answers."""
        return self.closing(pulse.of_postgres(self._settings)).with_work(trouble)

    def serve(self, checks: Mapping[str, Check]) -> Callable[[], None]:
        """Serve probes and metrics, ready while all `checks` pass; gives the heartbeat that the process must keep calling."""
        server = self.closing(probe_server.serve(self._settings.metrics_host, self._settings.metrics_port, checks))
        self.started(metrics_port=server.port)
        return server.beat

    def started(self, **about: object) -> None:
        """Log that set-up is complete, and tune the garbage collector. `serve` does this too."""
        _log.info("started", **about)
        gc_tuning.tune()

    def _signalled(self, *_: object) -> None:
        self.stop.set()
        for call in self._at_signal:
            call()


def wait_for_stop(stop: threading.Event) -> None:
    """Return when a signal's handler has set `stop`; for the main thread.

    Python runs handlers in the main thread. When a process goes on that was frozen, any thread takes the signals that came
    meanwhile, and that does not wake the main one: so it looks once in a second.
    """
    while not stop.wait(_LOOK):
        pass
