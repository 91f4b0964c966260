"""Queues, exchanges and bindings that are deleted under running processes."""

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from urllib.error import HTTPError
from urllib.request import urlopen

import pika
import pytest
from dramatiq.common import xq_name
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from ops.servers.private import PrivateServers
from support.cli import Cli
from support.waiting import wait_for
from workers.amqp import topology_watch
from workers.amqp.dramatiq_broker import QUEUE
from workers.amqp.publisher import Publisher
from workers.amqp.queue_depths import depths
from workers.amqp.topology import BEFORE_INBOX, EVENTS, IN, INBOX, INBOX_ARGUMENTS, RECEIVED, UNROUTED, declare, missing


@pytest.fixture
def channel(servers: PrivateServers, channel: BlockingChannel) -> Iterator[BlockingChannel]:
    """The shared fixture with empty inboxes; declares everything again afterwards, for the next test."""
    channel.queue_purge(INBOX)
    channel.queue_purge(UNROUTED)
    channel.confirm_delivery()
    yield channel
    with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
        declare(connection.channel())


@pytest.fixture
def catalog(database) -> None:
    database.add_tenant("acme")
    database.add_source("orders", "amqp")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def publish(channel: BlockingChannel, *names: str) -> None:
    """Publishes with confirms and without `mandatory`, as upstream systems do."""
    for name in names:
        properties = pika.BasicProperties(message_id=name, type="t", headers={"subject": "s"}, delivery_mode=2)
        channel.basic_publish(IN, "acme.orders", b"{}", properties)


def recorded(database) -> list[str]:
    rows = database.rows("SELECT attributes FROM content JOIN entry USING (chain_id, seq) ORDER BY seq")
    return [json.loads(row[0])["id"] for row in rows]


def not_ready(port: int) -> dict[str, str] | None:
    """The failed checks of a process; None while it is ready."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return None if answer.status == 200 else {}
    except HTTPError as error:
        return dict(json.loads(error.read())["checks"])
    except OSError:
        return {"broker": "not there"}


def depth(channel: BlockingChannel, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).method.message_count)


def consumers(channel: BlockingChannel, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).method.consumer_count)


def is_there(servers: PrivateServers, **exchange: str) -> bool:
    with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
        try:
            connection.channel().exchange_declare(**exchange, passive=True)
        except ChannelClosedByBroker:
            return False
    return True


@pytest.mark.usefixtures("catalog")
def test_an_inbox_that_was_deleted_is_declared_again_and_what_came_meanwhile_is_recorded_in_order(
    database, start, channel
) -> None:
    port = free_port()
    start("ingest", metrics_port=port)
    wait_for(lambda: not_ready(port) is None)
    publish(channel, "first")
    wait_for(lambda: recorded(database))

    channel.queue_delete(INBOX)
    names = [f"e-{number}" for number in range(50)]
    publish(channel, *names)
    wait_for(lambda: not_ready(port))
    wait_for(lambda: not_ready(port) is None)
    publish(channel, "last")
    wait_for(lambda: "last" in recorded(database))

    assert ["first", *names, "last"] == recorded(database)


@pytest.mark.usefixtures("catalog")
def test_what_a_worker_has_in_hand_of_a_deleted_inbox_is_recorded(database, start, channel) -> None:
    start("ingest", batch_size=2)
    names = [f"e-{number}" for number in range(9)]
    with database.connect() as owner, owner.transaction():
        owner.execute("LOCK TABLE entry IN EXCLUSIVE MODE")
        publish(channel, *names)
        wait_for(lambda: consumers(channel, INBOX) and not depth(channel, INBOX))
        channel.queue_delete(INBOX)
        wait_for(lambda: missing(channel.connection) is None)

    wait_for(lambda: len(recorded(database)) >= 9)

    assert names == recorded(database)


@pytest.mark.usefixtures("catalog")
def test_bindings_that_were_removed_come_back_and_nothing_is_lost(database, start, channel) -> None:
    process = start("ingest")
    wait_for(lambda: consumers(channel, INBOX))
    channel.queue_unbind(INBOX, IN, "#")
    channel.queue_unbind(INBOX, BEFORE_INBOX, "#")
    publish(channel, "stray")
    wait_for(lambda: recorded(database))

    def leads_to_inbox() -> bool:
        publish(channel, "again")
        return depth(channel, UNROUTED) == 0 and depth(channel, INBOX) > 0

    wait_for(lambda: depth(channel, UNROUTED) == 0)
    process.terminate()
    process.wait(30)
    wait_for(leads_to_inbox)


@pytest.mark.usefixtures("catalog")
def test_a_deleted_exchange_of_upstream_is_there_again_within_seconds(servers, start, channel, monkeypatch) -> None:
    start("ingest")
    wait_for(lambda: consumers(channel, INBOX))

    channel.exchange_delete(IN)

    wait_for(lambda: is_there(servers, exchange=IN))


@pytest.mark.parametrize("exchange", [IN, RECEIVED, BEFORE_INBOX, UNROUTED])
def test_an_idle_publisher_declares_again_what_was_deleted(servers, channel, monkeypatch, exchange: str) -> None:
    monkeypatch.setattr(topology_watch, "LOOK_SECONDS", 0.2)

    async def main() -> str:
        publisher = Publisher(servers.amqp_url, "test")
        publisher.start()
        try:
            await until(lambda: publisher.trouble() is None)
            channel.exchange_delete(exchange)
            await until(lambda: publisher.trouble() is not None)
            why = str(publisher.trouble())
            await until(lambda: publisher.trouble() is None)
            await publisher.publish(RECEIVED, "acme.orders", b"", pika.BasicProperties())
            return why
        finally:
            await publisher.close()

    assert f"the exchange {exchange} was missing and is declared again" == asyncio.run(main())
    wait_for(lambda: depth(channel, INBOX) == 1)


def test_what_cannot_be_declared_makes_a_publisher_unready_and_stops_no_message(servers, channel, monkeypatch) -> None:
    monkeypatch.setattr(topology_watch, "LOOK_SECONDS", 0.2)

    async def main() -> str:
        publisher = Publisher(servers.amqp_url, "test")
        publisher.start()
        try:
            await until(lambda: publisher.trouble() is None)
            channel.exchange_delete(EVENTS)
            channel.exchange_declare(EVENTS, "direct", durable=True)
            channel.exchange_delete(IN)
            await until(lambda: "cannot be declared" in (publisher.trouble() or ""))
            why = str(publisher.trouble())
            await publisher.publish(RECEIVED, "acme.orders", b"", pika.BasicProperties())
            channel.exchange_delete(EVENTS)
            await until(lambda: publisher.trouble() is None)
            return why
        finally:
            await publisher.close()

    assert "inequivalent arg 'type' for exchange 'waxseal.events'" in asyncio.run(main())


def test_a_message_that_comes_back_has_everything_declared_again_at_once(servers, channel) -> None:
    async def main() -> None:
        publisher = Publisher(servers.amqp_url, "test")
        publisher.start()
        try:
            await until(lambda: publisher.trouble() is None)
            for queue in (INBOX, UNROUTED):
                channel.queue_delete(queue)
            lost = await asyncio.gather(publisher.publish(RECEIVED, "a.b", b"", pika.BasicProperties()), return_exceptions=True)
            assert "the broker has no queue for it" == str(lost[0])
            await until(lambda: publisher.trouble() is not None, 1.0)
            await until(lambda: publisher.trouble() is None)
            await publisher.publish(RECEIVED, "a.b", b"", pika.BasicProperties())
        finally:
            await publisher.close()

    asyncio.run(main())

    wait_for(lambda: depth(channel, INBOX) == 1)


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - it polls, as a probe does
            await asyncio.sleep(0.02)


def test_a_broker_of_an_older_version_is_upgraded_without_losing_a_message(servers, database, channel) -> None:
    """The older version's exchanges have no alternate exchange, and cannot be declared again with one."""
    for queue in (INBOX, UNROUTED):
        channel.queue_delete(queue)
    for exchange in (IN, RECEIVED, BEFORE_INBOX, UNROUTED):
        channel.exchange_delete(exchange)
    channel.queue_declare(INBOX, durable=True, arguments=dict(INBOX_ARGUMENTS))
    for exchange in (IN, RECEIVED):
        channel.exchange_declare(exchange, "topic", durable=True)
        channel.queue_bind(INBOX, exchange, "#")
    publish(channel, "before")

    with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
        declare(connection.channel())
    publish(channel, "after")
    wait_for(lambda: depth(channel, INBOX) == 2)
    channel.queue_delete(INBOX)
    publish(channel, "kept")

    wait_for(lambda: depths(servers.amqp_url)[UNROUTED] == 1)
    shown = Cli(database, servers.amqp_url).run("status").output
    assert "unrouted       1 message came while the inbox queue was deleted" in shown


def test_the_queues_of_deliveries_are_declared_again_and_deliver_is_unready_meanwhile(database, start, channel, sink) -> None:
    database.add_tenant("acme")
    database.add_source("orders", "amqp")
    database.add_endpoint("billing", sink.url("/200"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    port = free_port()
    for command, settings in (("ingest", {}), ("relay", {}), ("deliver", {"metrics_port": port})):
        start(command, **settings)
    publish(channel, "first")
    wait_for(lambda: len(sink.ids()) == 1)
    wait_for(lambda: not_ready(port) is None)

    channel.queue_delete(QUEUE)
    channel.queue_delete(xq_name(QUEUE))
    publish(channel, "second")

    wait_for(lambda: not_ready(port))
    wait_for(lambda: len(sink.ids()) == 2)
    wait_for(lambda: not_ready(port) is None)
