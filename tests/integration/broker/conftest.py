"""The broker's channel for tests that delete what is declared on it."""

from collections.abc import Iterator

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from ops.servers.private import PrivateServers
from workers.amqp.topology import INBOX, UNROUTED, declare


@pytest.fixture
def channel(servers: PrivateServers, channel: BlockingChannel) -> Iterator[BlockingChannel]:
    """The shared fixture with everything declared and empty inboxes; the same afterwards, for the next test."""
    declare(channel)
    channel.queue_purge(INBOX)
    channel.queue_purge(UNROUTED)
    channel.confirm_delivery()
    yield channel
    with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
        again = connection.channel()
        declare(again)
        again.queue_purge(INBOX)
        again.queue_purge(UNROUTED)
