"""The ingest worker's connections to the broker, one after the other; with a broker that fails as the test says."""

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pika.exceptions import AMQPHeartbeatTimeout, ChannelClosedByBroker, ConnectionClosedByBroker, StreamLostError

from schemas.message import Message
from workers.amqp.broker_pulse import ConsumerOverlooked
from workers.ingest import worker
from workers.ingest.consumer import withheld_until
from workers.ingest.watchdog import Watch
from workers.ingest.worker import Ingest

Make = Callable[..., Ingest]


class Connection:
    """An open connection, until it is closed."""

    made: list["Connection"]
    _impl = SimpleNamespace(_adapter_call_later=lambda _seconds, _look: None)  # of its deadline

    def __init__(self, _parameters: object) -> None:
        self.is_open = True
        self.made.append(self)

    def close(self) -> None:
        self.is_open = False

    def add_callback_threadsafe(self, _callback: object) -> None:
        pass


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def ingest(monkeypatch, stop) -> Make:
    """A worker with this writer, for which the broker answers with this consumer."""

    def make(consumer: Callable[..., Any], write: Callable[..., None] = lambda _batch: None) -> Ingest:
        Connection.made = []
        monkeypatch.setattr(worker, "RECONNECT", (0.001, 0.001))
        monkeypatch.setattr(worker.pika, "BlockingConnection", Connection)
        monkeypatch.setattr(worker, "InboxConsumer", consumer)
        settings: Any = SimpleNamespace(amqp_url="amqp://localhost", prefetch=10, batch_size=5)
        writer: Any = SimpleNamespace(write=write, judge=lambda message, suspect: SimpleNamespace(message=message, size=1))
        priority: Any = SimpleNamespace(done=lambda: None, yield_to_first=lambda: None)
        return Ingest(settings, writer, stop, priority, Watch())

    return make


def test_a_connection_that_lost_only_its_channel_is_closed(ingest: Make, stop) -> None:
    def refused(*_: object) -> None:
        if len(Connection.made) == 3:
            stop.set()
        raise ChannelClosedByBroker(406, "PRECONDITION_FAILED - inequivalent arg")

    ingest(refused).run(lambda: None)

    assert [False] * 3 == [connection.is_open for connection in Connection.made]


def test_the_next_connection_is_made_when_the_last_one_s_batches_are_written(ingest: Make, stop, monkeypatch) -> None:
    order: list[str] = []
    again = threading.Event()

    def write(_batch: object) -> None:
        again.wait(0.3)  # while Postgres is slow
        order.append("written")

    def consumer(connection: Connection, _prefetch: int, receive: Callable[..., None], *_: object) -> Any:
        order.append("connected")
        if len(Connection.made) == 2:
            again.set()
            stop.set()
        message = Message("acme.orders", b"")
        handed: list[object] = []

        def turn(*, quiet: bool) -> None:
            if handed:
                raise ChannelClosedByBroker(406, "PRECONDITION_FAILED - delivery acknowledgement timed out")
            handed.append(receive(1, redelivered=False, message=message))

        return SimpleNamespace(channel=None, start=worker._nothing, turn=turn, came=worker._nothing, close=worker._nothing)

    monkeypatch.setattr(Connection, "process_data_events", lambda _self, time_limit: None, raising=False)
    ingest(consumer, write).run(lambda: None)

    assert ["connected", "written", "connected"] == order


@pytest.mark.parametrize(
    ("lost", "seconds"),
    [
        (StreamLostError(), 0.0),  # the node died: the others know it as well
        (ConnectionClosedByBroker(320, "shutdown"), 13.5),
        (AMQPHeartbeatTimeout(), 8.0),
        (ConsumerOverlooked(), 12.0),
    ],
)
def test_the_inbox_may_withhold_what_a_node_had_that_the_others_do_not_miss_yet(lost: Exception, seconds: float) -> None:
    assert seconds == pytest.approx(withheld_until(lost) - time.monotonic(), abs=0.5)
