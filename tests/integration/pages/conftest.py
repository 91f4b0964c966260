"""One seeded system for the module, with every process that its pages show."""

from collections.abc import Iterator
from typing import Any

import pika
import pytest

from ops.servers.private import PrivateServers
from support.console import seeding
from support.net.sink import Sink
from workers.amqp.dramatiq_broker import DELIVER_TOPOLOGY
from workers.amqp.topology import declare


@pytest.fixture(scope="module")
def seeded(servers: PrivateServers, shared_database: Any, shared_start: Any) -> Iterator[Any]:
    """The database of a system whose processes run, once all of its traffic is settled."""
    sink = Sink()
    sink.start()
    connection = pika.BlockingConnection(pika.URLParameters(servers.amqp_url))
    channel = connection.channel()
    declare(channel)
    for method, arguments in DELIVER_TOPOLOGY:
        getattr(channel, method)(**arguments)
    channel.confirm_delivery()
    seeding.configure(shared_database, sink)
    for command in ("ingest", "relay", "deliver", "sequencer", "sealer"):
        shared_start(command, mail_dns=False)
    seeding.settled(shared_database, seeding.send(channel))
    yield shared_database
    connection.close()
    sink.stop()
