import pytest
from dramatiq.errors import ConnectionClosed

from ops.servers.private import PrivateServers
from support.net.freezing import frozen
from workers.amqp.dramatiq_broker import QUEUE, ObservedBroker


def test_a_consumer_leaves_a_broker_that_does_not_answer(servers: PrivateServers) -> None:
    """Within less than the heartbeats take, which such a broker keeps up."""
    broker = ObservedBroker(servers.amqp_url, "test", answer_seconds=1.5)
    consumer = broker.consume(QUEUE)

    with frozen(servers.rabbitmq_pid), pytest.raises(ConnectionClosed, match="has not answered for"):
        next(consumer)

    with pytest.raises(ConnectionClosed):
        consumer.close()
    broker.close()


def test_a_consumer_without_messages_stays(servers: PrivateServers) -> None:
    broker = ObservedBroker(servers.amqp_url, "test", answer_seconds=0.5)
    consumer = broker.consume(QUEUE, timeout=200)

    assert [None] * 15 == [next(consumer) for _ in range(15)]
    consumer.close()
    broker.close()
