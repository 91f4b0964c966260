"""One database for each module, emptied after each test, and a worker that runs in the test's own process."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from ops.runtime.blobs import Blobs
from ops.servers.private import PrivateServers
from support.emptying import empty
from support.ingest import Worker, running
from support.queues import consumers
from support.sessions import end_connections
from support.waiting import wait_for
from workers.amqp.dramatiq_broker import DELIVER_TOPOLOGY, QUEUE
from workers.amqp.topology import IN, INBOX, UNROUTED, declare

Publish = Callable[..., None]
Ingest = Callable[..., Worker]  # starts a worker with settings by name


@pytest.fixture
def database(shared_database: Any) -> Iterator[Any]:
    """The database of the module, empty."""
    yield shared_database
    end_connections(shared_database)
    empty(shared_database)


@pytest.fixture(scope="module")
def connection(servers: PrivateServers) -> Iterator[pika.BlockingConnection]:
    parameters = pika.URLParameters(servers.amqp_url)
    parameters.heartbeat = 0  # it is used by some tests of the module only
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        declare(channel)
        # A process of the module before may not have ended yet: what it holds comes back to the inbox when it has.
        wait_for(lambda: not consumers(channel))
        channel.close()
        yield connection


@pytest.fixture
def channel(connection: pika.BlockingConnection) -> Iterator[BlockingChannel]:
    """A channel with confirms to the broker, with everything that the workers declare, and empty queues."""
    channel = connection.channel()
    declare(channel)
    for method, arguments in DELIVER_TOPOLOGY:
        getattr(channel, method)(**arguments)
    for queue in (UNROUTED, INBOX, QUEUE):
        channel.queue_purge(queue)
    channel.confirm_delivery()
    yield channel
    channel.close()


@pytest.fixture
def publish(channel: BlockingChannel) -> Publish:
    """Publishes to the inbox as an upstream system; or as Waxseal's receivers do, through their exchange."""

    def publish(body: bytes, key: str = "acme.orders", exchange: str = IN, **properties: object) -> None:
        channel.basic_publish(exchange, key, body, pika.BasicProperties(delivery_mode=2, **properties), mandatory=True)

    return publish


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder where the processes of `start` and the workers of `ingest` keep blobs."""
    return tmp_path / "blobs"


@pytest.fixture
def blobs(place: Path) -> Blobs:
    return Blobs(str(place))


@pytest.fixture
def ingest(database: Any, servers: PrivateServers, channel: BlockingChannel, place: Path) -> Iterator[Ingest]:
    """Starts workers that run until the test ends."""
    with ExitStack() as workers:

        def ingest(blobs: Blobs | None = None, **settings: Any) -> Worker:
            return workers.enter_context(running(database, servers.amqp_url, blobs or Blobs(str(place)), **settings))

        yield ingest
