"""The HTTP ingress: one process, one event loop, one connection to the broker."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final
from urllib.parse import unquote

import structlog

from ops.runtime import open_files
from ops.runtime.blobs import Blobs, open_blobs
from ops.runtime.vault import Vault
from ops.settings import Settings
from ops.telemetry.metrics import observe_blob_call
from ops.telemetry.probes import Answer as Report
from ops.telemetry.probes import Heart, Readiness, metrics
from workers.amqp.publisher import Publisher
from workers.ingress.clients import MOST
from workers.ingress.http_protocol import Route
from workers.ingress.intake import BLOB_SECONDS, Intake
from workers.ingress.listener import ClientBounds, Listener
from workers.ingress.problems import Answer, Problem, internal
from workers.ingress.request import Handler, Incoming
from workers.live_catalog import CatalogWatch
from workers.process import Process

_PROBE_BODY: Final = 64 * 1024  # bytes of a body sent with a probe; it is ignored
_FILES: Final = 2 * MOST  # files that the process may have open

_log = structlog.get_logger()


def make_route(
    catalog: CatalogWatch, publisher: Publisher, blobs: Blobs, processes: int = 1, *, stale_after: float = 10.0
) -> Route:
    """The route from each path to its handler.

    The process is one of `processes` that share the incoming messages, and enforces its share of the rate limits.
    """
    heart = Heart()
    # The process accepts messages without Postgres, so it must stay ready while Postgres is away: a note, not a check.
    notes = {"database": partial(catalog.stale, stale_after)}
    readiness = Readiness({"broker": publisher.trouble, "catalog": catalog.ready}, notes=notes)

    def alive(_accept: str) -> Report:
        heart.beat()  # the event loop runs, or it would not have called this
        return heart.answer()

    intake = Intake(catalog, publisher, blobs, processes)
    probes = {"livez": _Probe(alive), "readyz": _Probe(lambda _: readiness.answer()), "metrics": _Probe(metrics)}

    def route(request: Incoming) -> Handler:
        # Split before decoding: an encoded slash is part of a name, and no name contains one.
        segments = request.path.decode("ascii").split("/")
        if b"%" in request.path:
            segments = [unquote(each) for each in segments]
        request.segments = segments
        if len(segments) == 4 and segments[1] == "in" and segments[2] and segments[3]:
            return intake
        if len(segments) == 2 and segments[1] in probes:
            return probes[segments[1]]
        raise Problem("not_found", "messages go to /in/{tenant}/{source}")

    return route


class _Probe:
    """Handles the probes and the metrics."""

    def __init__(self, report: Callable[[str], Report]) -> None:
        """`report` is given the Accept header."""
        self._report = report
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, request: Incoming) -> None:
        """Accept GET and HEAD only. Raises `Problem`."""
        if request.method not in ("GET", "HEAD"):
            raise Problem("method", "only GET and HEAD are allowed", ("Allow", "GET, HEAD"))
        request.limit = _PROBE_BODY

    def complete(self, request: Incoming) -> None:
        """Make the report in a thread: it may take a while, and messages must not wait for it."""
        task = asyncio.get_running_loop().create_task(self._respond(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def refuse(self, request: Incoming, problem: Problem) -> None:
        """Answer with the problem."""
        request.answer(problem.answer(request.id))

    async def _respond(self, request: Incoming) -> None:
        try:
            report = await asyncio.to_thread(self._report, request.headers.get("accept", ""))
        except Exception as error:  # noqa: BLE001 - whatever it is, the sender is answered
            _log.exception("request_failed", request_id=request.id)
            self.refuse(request, internal(error))
        else:
            request.answer(Answer(report.status, report.content_type.encode(), report.body))


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status."""
    host, port = settings.ingress_host, settings.ingress_port
    with Process(settings, "ingress", "database_url", "amqp_url", "keys") as process:
        open_files.allow(_FILES)
        catalog = CatalogWatch(process.engine(1), Vault(settings.fernet_keys()))
        publisher = Publisher(settings.amqp_url, "ingress", timeout=settings.confirm_timeout)
        blobs = open_blobs(settings, BLOB_SECONDS, observe_blob_call)
        route = make_route(catalog, publisher, blobs, settings.ingress_processes, stale_after=settings.unready_after)
        bounds = ClientBounds(settings.ingress_connections_per_address, grace=settings.confirm_timeout + 1)
        listener = Listener(route, host, port, bounds)
        process.at_signal(listener.stop)  # until its event loop installs its own handlers
        process.at_end(catalog.stop)
        catalog.start()
        process.started(host=host, port=port)
        try:
            listener.run(publisher.start, publisher.close)
        except OSError as error:
            _log.error("cannot_listen", host=host, port=port, error=str(error))
            process.status = 1
    return process.status
