"""The console in the test's process."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from anyio import CapacityLimiter
from starlette.routing import BaseRoute

from ops.admin.status.queue_watch import QueueWatch
from ops.runtime.db import make_engine
from ops.settings import Settings
from workers.amqp.queue_depths import queues
from workers.console.access.principals import Authentication
from workers.console.app import make_app
from workers.console.call import Console
from workers.console.worker import Server


@contextmanager
def running_console(settings: Settings, more: Any = lambda _console: ()) -> Iterator[str]:
    """The console's address, while it runs. `more` gives further routes, made of a `Console`."""
    acts = make_engine(settings.database_url, pool_size=settings.console_pool)
    reads = make_engine(
        settings.database_url,
        pool_size=settings.console_pool,
        statement_timeout=settings.console_patience,
        reads_as="waxseal_reader",
    )
    threads = CapacityLimiter(settings.console_pool)
    watch = QueueWatch(settings.amqp_url, queues)
    console = Console(settings, reads, acts, threads, Authentication(settings, acts, threads), watch)
    routes: list[BaseRoute] = list(more(console))
    server = Server(make_app(console, routes), "127.0.0.1", settings.console_port, settings.console_proxies)
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.close()
        acts.dispose()
        reads.dispose()
