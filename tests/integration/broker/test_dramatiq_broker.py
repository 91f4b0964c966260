from itertools import chain, repeat
from unittest.mock import DEFAULT, Mock

import dramatiq
import pika
import pytest
from dramatiq.errors import ConnectionClosed
from pika.adapters.blocking_connection import BlockingChannel

from ops.servers.private import PrivateServers
from support.broker import overlooking
from support.net.freezing import frozen
from workers.amqp import broker_pulse
from workers.amqp.dramatiq_broker import QUEUE, ObservedBroker
from workers.amqp.session import Session


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages are found waiting sooner."""
    monkeypatch.setattr(broker_pulse, "LOOK", 0.3)


def test_a_consumer_leaves_a_broker_that_does_not_answer(servers: PrivateServers) -> None:
    """Within less than the heartbeats take, which such a broker keeps up."""
    broker = ObservedBroker(servers.amqp_url, "test", answer_seconds=1.5)
    consumer = broker.consume(QUEUE)

    with frozen(servers.rabbitmq_pid), pytest.raises(ConnectionClosed, match="has not answered for"):
        next(consumer)

    with pytest.raises(ConnectionClosed):
        consumer.close()
    broker.close()


def test_a_consumer_leaves_a_broker_that_gives_it_nothing_though_messages_wait(
    servers: PrivateServers, channel: BlockingChannel, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a look that failed, in whatever way."""
    monkeypatch.setattr(broker_pulse, "Session", Mock(side_effect=chain([RuntimeError], repeat(DEFAULT)), wraps=Session))
    broker = ObservedBroker(servers.amqp_url, "test")
    consumer = broker.consume(QUEUE, prefetch=1, timeout=200)
    next(consumer)  # it consumes

    with overlooking(servers, QUEUE):
        for _ in range(2):  # of which the broker thinks that the consumer has the first
            channel.basic_publish("", QUEUE, b"{}")
        with pytest.raises(ConnectionClosed, match=r"messages wait in .*, and the broker gives none"):
            while next(consumer) is None:
                pass

    channel.queue_delete(QUEUE)
    broker.close()


def test_whether_a_consumer_is_overlooked_is_asked_of_another_broker(servers: PrivateServers) -> None:
    broker = ObservedBroker(f"{servers.amqp_url},{servers.amqp_url.replace('127.0.0.1', 'localhost')}", "test")
    consumer = broker.consume(QUEUE)

    used = consumer.connection._impl.params.host  # type: ignore[attr-defined]
    assert {used} == {consumer._overlooked._brokers.all()[-1].host for _ in range(20)}  # type: ignore[attr-defined]

    consumer.close()
    broker.close()


def test_a_consumer_that_is_busy_stays_though_messages_wait(
    servers: PrivateServers, channel: BlockingChannel, soon: None
) -> None:
    broker = ObservedBroker(servers.amqp_url, "test")
    consumer = broker.consume(QUEUE, prefetch=1, timeout=200)
    message = dramatiq.Message(QUEUE, "test", (), {}, {}).encode()
    for _ in range(2):
        channel.basic_publish("", QUEUE, message)

    assert next(consumer) is not None
    assert [None] * 10 == [next(consumer) for _ in range(10)]

    consumer.close()
    channel.queue_delete(QUEUE)
    broker.close()


def test_a_broker_that_was_left_is_tried_last(servers: PrivateServers) -> None:
    broker = ObservedBroker("amqp://one:1/,amqp://two:2/,amqp://three:3/", "test")

    for each, port in (("two", 2), ("one", 1)):
        broker._brokers.leave(pika.URLParameters(f"amqp://{each}:{port}/"))
        assert {each} == {broker.parameters[-1].host for _ in range(20)}


def test_a_consumer_without_messages_stays(servers: PrivateServers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_pulse, "LOOK", 0.2)
    broker = ObservedBroker(servers.amqp_url, "test", answer_seconds=0.5)
    consumer = broker.consume(QUEUE, timeout=200)

    assert [None] * 15 == [next(consumer) for _ in range(15)]
    consumer.close()
    broker.close()
