"""The inbox, read over one connection by all tests of a module."""

from collections.abc import Iterator

import pytest

from ops.servers.private import PrivateServers
from support.ingress import Inbox


@pytest.fixture(scope="module")
def inbox(servers: PrivateServers) -> Iterator[Inbox]:
    inbox = Inbox(servers.amqp_url)
    inbox.empty()  # of other modules' messages
    yield inbox
    inbox.close()
