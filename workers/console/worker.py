"""The console process: a web server in a thread of its own, and what the console does in the background, in rounds."""

import socket
import threading
from typing import Final

import structlog
import uvicorn
from anyio import CapacityLimiter
from starlette.applications import Starlette

from ops.admin.access.sweeping import Sweeping
from ops.admin.search import cursors
from ops.admin.status.queue_watch import QueueWatch
from ops.settings import Settings
from workers.amqp.queue_depths import queues
from workers.console.access.principals import Authentication
from workers.console.app import make_app
from workers.console.bounded_protocol import BoundedProtocol
from workers.console.call import Console
from workers.console.indexer import Indexing
from workers.console.job_runner import JobRunner
from workers.console.pace import Pace
from workers.process import Process
from workers.rounds import Rounds

MOST_CONNECTIONS: Final = 200
_GRACE: Final = 5  # seconds for answers that are under way when the process is to stop

_log = structlog.get_logger()


class Server:
    """Serves the application from a thread until `close`."""

    def __init__(self, app: Starlette, host: str, port: int, proxies: str = "") -> None:
        """`proxies`: networks whose word is taken for a client's address. Raises `OSError` if it cannot listen."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=128)
        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            loop="uvloop",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=bool(proxies),
            forwarded_allow_ips=proxies,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=_GRACE,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, name="web", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._socket.getsockname()[1])

    def trouble(self) -> str | None:
        """Why it does not serve; None while it does."""
        return None if self._thread.is_alive() else "the web server has ended; the log says why"

    def close(self) -> None:
        """Answer what is under way, and stop listening."""
        self._server.should_exit = True
        self._thread.join(_GRACE + 1)
        self._socket.close()


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status."""
    client = ["oidc_client"] if settings.oidc_issuer else []
    with Process(settings, "console", "database_url", "keys", *client) as process:
        cursors.sign_with(settings.fernet_keys())
        acts = process.engine(settings.console_pool)
        reads = process.engine(settings.console_pool, statement_timeout=settings.console_patience, reads_as="waxseal_reader")
        # Each handler holds at most one connection of each pool, so that none waits for another's.
        threads = CapacityLimiter(settings.console_pool)
        watch, pace = QueueWatch(settings.amqp_url, queues), Pace(settings.console_share)
        console = Console(settings, reads, acts, threads, Authentication(settings, acts, threads), watch, pace)
        try:
            server = process.closing(
                Server(make_app(console), settings.console_host, settings.console_port, settings.console_proxies)
            )
        except OSError as error:
            _log.error("cannot_listen", host=settings.console_host, port=settings.console_port, error=str(error))
            return 1
        jobs = process.closing(JobRunner(settings, process.engine(1)))
        indexing, sweeping = Indexing(process.engine(1)), Sweeping(acts)

        def turn() -> float:
            sweeping.turn()
            return indexing.turn()

        rounds = Rounds(process.stop, turn)
        rounds.trouble = None
        beat = process.serve(
            {"database": process.database(lambda: rounds.trouble), "web": server.trouble, "jobs": jobs.trouble}
        )
        _log.info("listening", host=settings.console_host, port=server.port)
        rounds.run(beat)
    return process.status
