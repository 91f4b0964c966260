"""The HTTP ingress: Starlette on uvicorn, one process, one connection to the broker."""

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ops import garbage
from ops import log as logs
from ops.blobs import Blobs, open_blobs
from ops.db import make_engine
from ops.probes import Answer, Heart, Readiness, metrics
from ops.secrets import Vault
from ops.settings import Settings, require
from workers.catalog import CatalogWatch
from workers.intake import BLOB_SECONDS, Intake
from workers.problems import RETRY_AFTER, SECURITY, Problem
from workers.protocol import make_protocol
from workers.publisher import Publisher

READ_SECONDS = 20.0  # for a request to arrive whole
KEEP_ALIVE_SECONDS = 75  # between two requests; longer than load balancers wait, so that they are the ones to hang up

_log = structlog.get_logger()


def make_app(
    catalog: CatalogWatch, publisher: Publisher, blobs: Blobs, processes: int = 1, *, stale_after: float = 10.0
) -> Starlette:
    """The application. It starts and stops `publisher`, whose connection lives on its event loop; not `catalog`.

    It is one of `processes` that share what sources send, and lets its part of their rate limits through.
    """
    heart = Heart()
    # It needs no Postgres to take messages, so nobody is to keep them from it while Postgres is away.
    notes = {"database": partial(catalog.stale, stale_after)}
    readiness = Readiness({"broker": publisher.ready, "catalog": catalog.ready}, notes=notes)

    def alive() -> Answer:
        heart.beat()  # the loop turns, or this would not be asked
        return heart.answer()

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        publisher.start()
        try:
            yield
        finally:
            await publisher.close()

    return Starlette(
        routes=[
            Route("/in/{tenant}/{source}", Intake(catalog, publisher, blobs, processes)),
            Route("/livez", _probe(alive)),
            Route("/readyz", _probe(readiness.answer)),
            Route("/metrics", _probe(metrics)),
        ],
        exception_handlers={HTTPException: _refused, Exception: _failed},
        lifespan=lifespan,
    )


def _probe(answer: Callable[[], Answer]) -> Callable[[Request], object]:
    async def respond(_request: Request) -> Response:
        # In a thread: these may take a while, and nobody's message is to wait for that.
        given = await asyncio.to_thread(answer)
        response = Response(given.body, given.status, media_type=None)
        response.raw_headers += [(b"content-type", given.content_type.encode()), *SECURITY]
        return response

    return respond


async def _refused(_request: Request, error: Exception) -> Response:
    """Answer what no route takes."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "GET")
        return _problem(Problem("method", f"only {allow}", ("Allow", allow)))
    return _problem(Problem("not_found", "messages go to /in/{tenant}/{source}"))


async def _failed(_request: Request, error: Exception) -> Response:
    """Answer where the fault is ours. The error goes on to the log."""
    return _problem(Problem("internal", f"{type(error).__name__}; it has been logged", RETRY_AFTER))


def _problem(problem: Problem) -> Response:
    headers, body = problem.answer(secrets.token_hex(16))
    response = Response(body, problem.status)
    response.raw_headers = headers
    return response


def make_server(app: Starlette, host: str, port: int, *, read_seconds: float, grace: float) -> uvicorn.Server:
    """The server, bounded; when it is stopped it finishes what it has begun, for `grace` seconds at most."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=make_protocol(read_seconds),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(grace) + 1,
    )
    return uvicorn.Server(config)


def run(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT. Returns the exit status."""
    require(settings, "database_url", "amqp_url", "keys")
    logs.configure(settings.log, settings.log_level, "ingress")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn sets its own, and raises the signal again when it is done
    engine = make_engine(settings.database_url, pool_size=1)
    catalog = CatalogWatch(engine, Vault(settings.fernet_keys()))
    publisher = Publisher(settings.amqp_url, "ingress", timeout=settings.confirm_timeout)
    blobs = open_blobs(settings, BLOB_SECONDS)
    app = make_app(catalog, publisher, blobs, settings.ingress_processes, stale_after=settings.unready_after)
    grace = settings.confirm_timeout
    server = make_server(app, settings.ingress_host, settings.ingress_port, read_seconds=READ_SECONDS, grace=grace)
    catalog.start()
    garbage.calm()
    _log.info("started", host=settings.ingress_host, port=settings.ingress_port)
    try:
        server.run()
    finally:
        catalog.stop()
        engine.dispose()
    _log.info("stopped")
    return 0
