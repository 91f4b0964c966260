"""Queues, exchanges and bindings that are deleted under running processes."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.request import urlopen

import pika
import pytest
from dramatiq.common import xq_name
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from ops.servers.private import PrivateServers
from support.net.ports import free_port
from support.net.sink import Sink
from support.queues import consumers, depth, publish
from support.sending import SECRET
from support.waiting import wait_for
from workers.amqp.dramatiq_broker import QUEUE
from workers.amqp.topology import BEFORE_INBOX, IN, INBOX, UNROUTED, missing


@dataclass
class System:
    """An ingest process that runs while this file's tests do, one source, and one endpoint."""

    database: Any
    sink: Sink
    ports: dict[str, int]  # where the processes tell whether they are ready

    def ready(self, role: str) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.ports[role]}/readyz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def recorded(self, *names: str) -> list[str]:
        """Those of the events `names` that are recorded, in their order in the ledger."""
        rows = self.database.rows("SELECT attributes FROM content JOIN entry USING (chain_id, seq) ORDER BY seq")
        return [id_ for row in rows if (id_ := json.loads(row[0])["id"]) in names]


@pytest.fixture(scope="module")
def running(shared_database: Any, shared_start: Callable[..., object]) -> Iterator[System]:
    sink = Sink()
    sink.start()
    shared_database.add_tenant("acme")
    shared_database.add_source("orders", "amqp")
    shared_database.add_endpoint("billing", sink.url("/200"), SECRET)
    ports = {role: free_port() for role in ("ingest", "deliver")}
    shared_start("ingest", metrics_port=ports["ingest"], batch_size=2)
    yield System(shared_database, sink, ports)
    sink.stop()


@pytest.fixture
def system(running: System, channel: BlockingChannel) -> System:
    wait_for(lambda: consumers(channel) and running.ready("ingest"), 60)
    return running


def is_there(servers: PrivateServers, **exchange: str) -> bool:
    with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
        try:
            connection.channel().exchange_declare(**exchange, passive=True)
        except ChannelClosedByBroker:
            return False
    return True


def test_an_inbox_that_was_deleted_is_declared_again_and_what_came_meanwhile_is_recorded_in_order(system, channel) -> None:
    names = ["first", *(f"e-{number}" for number in range(50)), "last"]
    publish(channel, "first")
    wait_for(lambda: system.recorded("first"))

    channel.queue_delete(INBOX)
    publish(channel, *names[1:-1])
    wait_for(lambda: not system.ready("ingest"))
    wait_for(lambda: system.ready("ingest"))
    publish(channel, "last")
    wait_for(lambda: system.recorded("last"))

    assert names == system.recorded(*names)


def test_what_a_worker_has_in_hand_of_a_deleted_inbox_is_recorded(system, channel) -> None:
    names = [f"in-hand-{number}" for number in range(9)]
    with system.database.connect() as owner, owner.transaction():
        owner.execute("LOCK TABLE entry IN EXCLUSIVE MODE")
        publish(channel, *names)
        wait_for(lambda: not depth(channel))
        channel.queue_delete(INBOX)
        wait_for(lambda: missing(channel.connection) is None)

    wait_for(lambda: len(system.recorded(*names)) >= 9)

    assert names == system.recorded(*names)


def test_bindings_that_were_removed_come_back_and_nothing_is_lost(system, channel) -> None:
    witness = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(witness, UNROUTED)

    def strays() -> bool:  # unless the process has put a binding back in between
        channel.queue_unbind(INBOX, IN, "#")
        channel.queue_unbind(INBOX, BEFORE_INBOX, "#")
        publish(channel, "stray")
        return depth(channel, witness) == 1

    wait_for(strays)
    wait_for(lambda: system.recorded("stray"))

    def leads_to_inbox() -> bool:
        before = depth(channel, witness)
        publish(channel, "again")
        return depth(channel, witness) == before

    wait_for(leads_to_inbox)
    wait_for(lambda: system.recorded("again"))
    wait_for(lambda: depth(channel, UNROUTED) == 0)


def test_a_deleted_exchange_of_upstream_is_there_again_within_seconds(servers, system, channel) -> None:
    channel.exchange_delete(IN)

    wait_for(lambda: is_there(servers, exchange=IN))


def test_the_queues_of_deliveries_are_declared_again_and_deliver_is_unready_meanwhile(system, shared_start, channel) -> None:
    shared_start("relay")
    shared_start("deliver", metrics_port=system.ports["deliver"])
    publish(channel, "pending")
    wait_for(lambda: "pending" in system.sink.ids())
    wait_for(lambda: system.ready("deliver"))

    channel.queue_delete(QUEUE)
    channel.queue_delete(xq_name(QUEUE))
    publish(channel, "pending-meanwhile")

    wait_for(lambda: not system.ready("deliver"))
    wait_for(lambda: "pending-meanwhile" in system.sink.ids())
    wait_for(lambda: system.ready("deliver"))
