"""Queues, exchanges and bindings that are deleted on the broker while nobody but a publisher is there."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pika
import pytest

from ops.servers.private import PrivateServers
from support.cli import Cli
from support.queues import depth, publish
from support.waiting import wait_for
from workers.amqp import topology_watch
from workers.amqp.publisher import Publisher
from workers.amqp.queue_depths import depths
from workers.amqp.topology import BEFORE_INBOX, EVENTS, IN, INBOX, INBOX_ARGUMENTS, RECEIVED, UNROUTED, declare


@asynccontextmanager
async def publishing(servers: PrivateServers) -> AsyncIterator[Publisher]:
    """A publisher that found everything declared."""
    publisher = Publisher(servers.amqp_url, "test")
    publisher.start()
    try:
        await until(lambda: publisher.trouble() is None)
        yield publisher
    finally:
        await publisher.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - it polls, as a probe does
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("exchange", [IN, RECEIVED, BEFORE_INBOX, UNROUTED])
def test_an_idle_publisher_declares_again_what_was_deleted(servers, channel, monkeypatch, exchange: str) -> None:
    monkeypatch.setattr(topology_watch, "LOOK_SECONDS", 0.2)

    async def main() -> str:
        async with publishing(servers) as publisher:
            channel.exchange_delete(exchange)
            await until(lambda: publisher.trouble() is not None)
            why = str(publisher.trouble())
            await until(lambda: publisher.trouble() is None)
            await publisher.publish(RECEIVED, "acme.orders", b"", pika.BasicProperties())
            return why

    assert f"the exchange {exchange} was missing and is declared again" == asyncio.run(main())
    wait_for(lambda: depth(channel) == 1)


def test_what_cannot_be_declared_makes_a_publisher_unready_and_stops_no_message(servers, channel, monkeypatch) -> None:
    monkeypatch.setattr(topology_watch, "LOOK_SECONDS", 0.2)

    async def main() -> str:
        async with publishing(servers) as publisher:
            channel.exchange_delete(EVENTS)
            channel.exchange_declare(EVENTS, "direct", durable=True)
            channel.exchange_delete(IN)
            await until(lambda: "cannot be declared" in (publisher.trouble() or ""))
            why = str(publisher.trouble())
            await publisher.publish(RECEIVED, "acme.orders", b"", pika.BasicProperties())
            channel.exchange_delete(EVENTS)
            await until(lambda: publisher.trouble() is None)
            return why

    assert "inequivalent arg 'type' for exchange 'waxseal.events'" in asyncio.run(main())


def test_a_message_that_comes_back_has_everything_declared_again_at_once(servers, channel, monkeypatch) -> None:
    monkeypatch.setattr(topology_watch, "LOOK_SECONDS", 3600.0)

    async def main() -> None:
        async with publishing(servers) as publisher:
            for queue in (INBOX, UNROUTED):
                channel.queue_delete(queue)
            lost = await asyncio.gather(publisher.publish(RECEIVED, "a.b", b"", pika.BasicProperties()), return_exceptions=True)
            assert "the broker has no queue for it" == str(lost[0])
            await until(lambda: publisher.trouble() is not None)
            await until(lambda: publisher.trouble() is None)
            await publisher.publish(RECEIVED, "a.b", b"", pika.BasicProperties())

    asyncio.run(main())

    wait_for(lambda: depth(channel) == 1)


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
    wait_for(lambda: depth(channel) == 2)
    channel.queue_delete(INBOX)
    publish(channel, "kept")

    wait_for(lambda: depths(servers.amqp_url)[UNROUTED] == 1)
    shown = Cli(database, servers.amqp_url).run("status").output
    assert "unrouted       1 message came while the inbox queue was deleted" in shown
