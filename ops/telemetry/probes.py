"""The answers of a process's probes, whichever server gives them: /livez, /readyz and /metrics.

`ops.telemetry.probe_server` serves these answers for processes without a web server, the ingress under its own routes.
"""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

import orjson

from ops.telemetry.exposition import EXPOSITION

Check = Callable[[], str | None]

SECURITY_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_MAX_REASON = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer over HTTP; `SECURITY_HEADERS` go with it."""

    status: int
    content_type: str
    body: bytes


class Heart:
    """Whether a process's main loop still runs: alive while the last beat is less than `limit` seconds old."""

    def __init__(self, limit: float = 30.0) -> None:
        self._limit = limit
        self._last = time.monotonic()

    def beat(self) -> None:
        """Note that the main loop runs; any thread may call this, and it costs nothing."""
        self._last = time.monotonic()

    def answer(self) -> Answer:
        """Give 200 while alive, else 503."""
        age = time.monotonic() - self._last
        alive = age < self._limit
        return _json(200 if alive else 503, {"alive": alive, "seconds_since_beat": round(age, 1)})


class Readiness:
    """Runs all checks at once, each in a thread of its own, and waits for them at most `deadline` seconds.

    A check gives None when all is well, else a short reason, which is published: no secrets in it. A check that hangs
    makes the process not ready, and is not started again before it has returned, so that threads do not pile up.
    `notes` tell operators what they should know of a process that is ready all the same; they must not block.
    """

    def __init__(self, checks: Mapping[str, Check], deadline: float = 2.0, notes: Mapping[str, Check] | None = None) -> None:
        self._checks = dict(checks)
        self._notes = dict(notes or {})
        self._deadline = deadline
        self._running: dict[str, Future[str | None]] = {}
        self._lock = threading.Lock()

    def answer(self) -> Answer:
        """Give 200 when every check passes, else 503; `{"ready":bool,"checks":{name:"ok"|reason}}`. Blocks.

        `"notes":{name:what}` is there when there is something to note.
        """
        until = time.monotonic() + self._deadline
        runs = {name: self._run(name) for name in self._checks}
        checks = {name: self._verdict(run, until) for name, run in runs.items()}
        ready = all(verdict == "ok" for verdict in checks.values())
        notes = {name: said[:_MAX_REASON] for name, note in self._notes.items() if (said := note()) is not None}
        return _json(200 if ready else 503, {"ready": ready, "checks": checks, **({"notes": notes} if notes else {})})

    def _run(self, name: str) -> Future[str | None]:
        with self._lock:
            run = self._running.get(name)
            if run is None or run.done():
                run = self._running[name] = _in_thread(name, self._checks[name])
            return run

    def _verdict(self, run: Future[str | None], until: float) -> str:
        try:
            reason = run.result(max(0.0, until - time.monotonic()))
        except TimeoutError:
            return f"no answer within {self._deadline:g} s" if not run.done() else "TimeoutError"
        except Exception as error:  # noqa: BLE001 - whatever a check raises means not ready; its text may hold a secret
            return type(error).__name__
        return "ok" if reason is None else reason[:_MAX_REASON]


def metrics(accept: str = "") -> Answer:
    """Give all metrics of this process, in the form that the Accept header asks for."""
    return Answer(200, *EXPOSITION.text(accept))


def _in_thread(name: str, check: Check) -> Future[str | None]:
    run: Future[str | None] = Future()

    def settle() -> None:
        try:
            run.set_result(check())
        except BaseException as error:  # noqa: BLE001 - a future without a result makes its probe wait in vain
            run.set_exception(error)

    # A daemon, unlike an executor's thread, does not keep the process from ending while a check hangs.
    threading.Thread(target=settle, name=f"check-{name}", daemon=True).start()
    return run


def _json(status: int, body: Mapping[str, object]) -> Answer:
    return Answer(status, "application/json", orjson.dumps(body))
