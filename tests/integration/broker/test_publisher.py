import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pika
import pytest

from ops.servers.private import PrivateServers
from ops.servers.rabbitmq import NODE
from support.broker import alarm, broker_stopped, evaluated, unanswering
from support.ingress import drain, empty_inbox
from support.net.freezing import frozen
from support.queues import depth
from support.waiting import wait_for
from workers.amqp.confirm_window import Outgoing
from workers.amqp.link import AWAY, LOST
from workers.amqp.publisher import Publisher, Unconfirmed
from workers.amqp.publisher_thread import PublisherThread
from workers.amqp.topology import INBOX, RECEIVED, TOPOLOGY

Lateness = Callable[[], float]

DURABLE = pika.BasicProperties(delivery_mode=2)
RECOVERY = 60.0  # seconds within which a publisher must be ready again
TINY = ("queue_declare", {"queue": "tiny", "arguments": {"x-max-length": 1, "x-overflow": "reject-publish"}})
IN_ALARM = "the broker is in alarm: low on memory"


@pytest.fixture
def inbox(servers: PrivateServers) -> Iterator[Callable[[], int]]:
    """Empties the inbox; call the result for the number of messages in it."""
    empty_inbox(servers.amqp_url)

    def found() -> int:
        with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
            return depth(connection.channel())

    yield found
    empty_inbox(servers.amqp_url)


@asynccontextmanager
async def publishing(servers: PrivateServers, seconds: float = 5.0, **options: Any) -> AsyncIterator[Publisher]:
    publisher = Publisher(servers.amqp_url, "test", timeout=seconds, **options)
    publisher.start()
    try:
        await until_ready(publisher)
        yield publisher
    finally:
        await publisher.close()


async def until_ready(publisher: Publisher) -> None:
    async with asyncio.timeout(RECOVERY):
        while publisher.ready() is not None:  # noqa: ASYNC110 - it polls, as a probe does
            await asyncio.sleep(0.02)


async def until_not_ready(publisher: Publisher, but: str | None = None) -> str:
    """Why the publisher is not ready, once it gives a reason other than `but`."""
    async with asyncio.timeout(RECOVERY):
        while (reason := publisher.ready()) in (None, but):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return reason


def post(publisher: Publisher, body: bytes = b"{}") -> asyncio.Future[None]:
    return publisher.publish(RECEIVED, "acme.shop", body, DURABLE)


async def fault(publishing: Awaitable[None]) -> tuple[str | None, float]:
    """Why a message was not confirmed, or None if it was; and the seconds until then."""
    began = time.monotonic()
    try:
        await publishing
    except Unconfirmed as error:
        return str(error), time.monotonic() - began
    return None, time.monotonic() - began


def test_what_is_confirmed_is_in_the_inbox(servers: PrivateServers, inbox: Callable[[], int]) -> None:
    async def main() -> None:
        async with publishing(servers) as publisher:
            await asyncio.gather(*(post(publisher) for _ in range(500)))

    asyncio.run(main())

    wait_for(lambda: inbox() == 500)


def test_a_small_window_lets_everything_through_a_few_at_a_time(servers: PrivateServers, inbox: Callable[[], int]) -> None:
    async def main() -> None:
        async with publishing(servers, window=7) as publisher:
            await asyncio.gather(*(post(publisher) for _ in range(500)))

    asyncio.run(main())

    wait_for(lambda: inbox() == 500)


def test_what_reaches_no_queue_is_unconfirmed_and_the_rest_is_not(servers: PrivateServers, inbox: Callable[[], int]) -> None:
    async def main() -> list[str | None]:
        async with publishing(servers) as publisher:
            mixed = [publisher.publish("", "nowhere", b"", DURABLE) if number % 2 else post(publisher) for number in range(100)]
            return [(await fault(one))[0] for one in mixed]

    faults = asyncio.run(main())

    assert [None, "the broker has no queue for it"] * 50 == faults
    wait_for(lambda: inbox() == 50)


def test_what_a_queue_refuses_is_unconfirmed(servers: PrivateServers) -> None:
    async def main() -> list[str | None]:
        publisher = Publisher(servers.amqp_url, "test", topology=[*TOPOLOGY, TINY])
        publisher.start()
        await until_ready(publisher)
        try:
            return [(await fault(publisher.publish("", "tiny", b"", DURABLE)))[0] for _ in range(3)]
        finally:
            await publisher.close()

    faults = asyncio.run(main())
    with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
        connection.channel().queue_delete("tiny")

    assert "the broker refused it" == faults[-1]


def test_what_a_channel_refuses_for_ever_goes_on_another_channel(servers: PrivateServers, inbox: Callable[[], int]) -> None:
    if evaluated(servers, ASKS_ONE) != "true":
        pytest.skip("this RabbitMQ asks all members of a queue")

    async def main() -> tuple[set[str | None], str | None]:
        async with publishing(servers) as publisher:
            led_by(servers, "gone@localhost")
            try:
                refused = {(await fault(post(publisher)))[0] for _ in range(3)}
            finally:
                led_by(servers, NODE)
            async with asyncio.timeout(RECOVERY):
                while (why := (await fault(post(publisher)))[0]) is not None:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            return refused, why

    assert ({"the broker refused it"}, None) == asyncio.run(main())
    wait_for(lambda: inbox() == 1)


#: Whether a new channel asks only the leader of a queue.
ASKS_ONE = '{ok, Version} = application:get_key(rabbit, vsn), rabbit_misc:version_compare(Version, "3.12.5", lt).'


def led_by(servers: PrivateServers, node: str) -> None:
    """Has channels that are opened from now on look for the leader of the inbox there."""
    queue = f'rabbit_misc:r(<<"/">>, queue, <<"{INBOX}">>)'
    led = f"amqqueue:set_pid(Q, setelement(2, amqqueue:get_pid(Q), '{node}'))"
    update = f"rabbit_amqqueue:update({queue}, fun(Q) -> {led} end)"
    evaluated(servers, f"rabbit_misc:execute_mnesia_transaction(fun() -> {update} end).")


def test_what_is_in_flight_is_confirmed_though_the_channel_is_left(servers: PrivateServers, inbox: Callable[[], int]) -> None:
    async def main() -> tuple[list[str | None], list[str | None]]:
        publisher = Publisher(servers.amqp_url, "test", topology=[*TOPOLOGY, TINY], window=300)
        publisher.start()
        await until_ready(publisher)
        left = publisher._channel
        try:
            sent = [publisher.publish("", "tiny", b"", DURABLE) if one % 10 else post(publisher) for one in range(2000)]
            faults = [(await fault(one))[0] for one in sent]
            async with asyncio.timeout(RECOVERY):
                while publisher._channel is left:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            assert left is not None
            while not left.is_closed:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            return faults[::10], [fault for one, fault in enumerate(faults) if one % 10]
        finally:
            await publisher.close()

    taken, refused = asyncio.run(main())
    with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
        connection.channel().queue_delete("tiny")

    assert [None] * 200 == taken
    assert {None, "the broker refused it"} == set(refused)


def test_a_message_is_not_at_fault_when_its_channel_has_just_closed(servers: PrivateServers, inbox: Callable[[], int]) -> None:
    async def main() -> list[str | None]:
        async with publishing(servers) as publisher:
            before, _ = await fault(post(publisher))
            assert publisher._channel is not None
            publisher._channel.close()  # the link hears of it when the broker has answered
            return [before, (await fault(post(publisher)))[0]]

    assert [None, LOST] == asyncio.run(main())


def test_a_message_that_fits_into_no_frame_harms_no_other(servers: PrivateServers, inbox: Callable[[], int]) -> None:
    huge = pika.BasicProperties(headers={f"h{n}": "x" * 2000 for n in range(100)})

    async def main() -> list[str | None]:
        async with publishing(servers) as publisher:
            sent = [
                post(publisher),
                publisher.publish(RECEIVED, "a.b", b"", huge),
                publisher.publish(RECEIVED, "k" * 300, b"", DURABLE),
                publisher.publish(RECEIVED, "a.b", b"", pika.BasicProperties(content_type="\ud800")),
                post(publisher, b"x" * 300_000),
            ]
            return [(await fault(one))[0] for one in sent]

    faults = asyncio.run(main())

    assert [False, True, True, True, False] == [one is not None and one.startswith("cannot be sent") for one in faults]
    assert [None, None] == [faults[0], faults[-1]]
    wait_for(lambda: inbox() == 2)


def test_what_waits_when_the_publisher_closes_is_unconfirmed(servers: PrivateServers, inbox: Callable[[], int]) -> None:
    async def main() -> set[str | None]:
        async with publishing(servers, window=1) as publisher:
            waiting = [post(publisher) for _ in range(50)]
        return {(await fault(one))[0] for one in waiting}

    assert asyncio.run(main()) <= {None, "the connection to the broker was lost"}


def test_a_silent_broker_is_given_up_at_the_deadline_and_taken_up_again(
    servers: PrivateServers, inbox: Callable[[], int], lateness: Lateness
) -> None:
    async def main() -> None:
        async with publishing(servers, seconds=1.0) as publisher:
            with frozen(servers.rabbitmq_pid):
                why, seconds = await fault(post(publisher))
                silent = await until_not_ready(publisher)
            assert "the broker did not confirm it in time" == why
            assert 1.0 <= seconds < 1.5 + lateness()
            assert "has not confirmed anything" in silent
            await until_ready(publisher)
            assert (None, True) == await confirmed_within(publisher, 1.0, lateness)

    asyncio.run(main())


def test_a_broker_that_confirms_nothing_is_left_though_it_keeps_up_its_heartbeats(
    servers: PrivateServers, inbox: Callable[[], int]
) -> None:
    async def main() -> None:
        async with publishing(servers, seconds=0.3, useless=1.0) as publisher:
            with unanswering(servers, INBOX):
                assert "the broker did not confirm it in time" == (await fault(post(publisher)))[0]
                await until_not_ready(publisher)
                async with asyncio.timeout(RECOVERY):
                    while publisher.ending is None:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                assert publisher.ending.startswith("the broker has not confirmed anything")
            await until_ready(publisher)
            assert (await fault(post(publisher)))[0] is None

    asyncio.run(main())


def test_a_broker_that_refuses_everything_is_left(servers: PrivateServers) -> None:
    async def main() -> str | None:
        publisher = Publisher(servers.amqp_url, "test", topology=[*TOPOLOGY, TINY], timeout=0.5, useless=0.5)
        publisher.start()
        await until_ready(publisher)
        try:
            async with asyncio.timeout(RECOVERY):
                while publisher.ending is None:
                    await fault(publisher.publish("", "tiny", b"", DURABLE))
                    await asyncio.sleep(0.02)
            return publisher.ending
        finally:
            await publisher.close()

    ending = asyncio.run(main())
    with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
        connection.channel().queue_delete("tiny")

    assert ending is not None
    assert ending.startswith("the broker has refused everything")


async def confirmed_within(publisher: Publisher, seconds: float, lateness: Lateness) -> tuple[str | None, bool]:
    why, took = await fault(post(publisher))
    return why, took < seconds + lateness()


def test_a_broker_killed_right_after_its_first_message_fails_what_is_in_flight_at_once_and_is_found_again_with_its_data(
    servers: PrivateServers, inbox: Callable[[], int], lateness: Lateness
) -> None:
    delete_topology(servers)
    before = servers.amqp_url

    async def main() -> None:
        async with publishing(servers) as publisher:
            await post(publisher, b"first")
            with broker_stopped(servers):
                began = time.monotonic()
                faults = [await fault(one) for one in [post(publisher) for _ in range(100)]]
                assert time.monotonic() - began < 1.0 + lateness()
                assert all(why is not None for why, _ in faults)
                assert AWAY == publisher.ready()
                assert (AWAY, True) == await confirmed_within(publisher, 0.1, lateness)
            await until_ready(publisher)
            assert (None, True) == await confirmed_within(publisher, 2.0, lateness)

    asyncio.run(main())

    assert before == servers.amqp_url
    assert [b"first", b"{}"] == [message.body for _, message in drain(servers.amqp_url)]


def test_nothing_confirmed_is_lost_when_the_broker_is_killed_under_load(
    servers: PrivateServers, inbox: Callable[[], int]
) -> None:
    confirmed = 0
    done = threading.Event()

    async def main() -> None:
        async with publishing(servers) as publisher:
            await asyncio.gather(*(send_on(publisher) for _ in range(50)))

    async def send_on(publisher: Publisher) -> None:
        nonlocal confirmed
        while not done.is_set():
            why, _ = await fault(post(publisher, b"x" * 500))
            confirmed += why is None
            await asyncio.sleep(0 if why is None else 0.5)

    load = threading.Thread(target=lambda: asyncio.run(main()))
    load.start()
    wait_for(lambda: confirmed > 500)
    with broker_stopped(servers):  # in this thread: the broker ends with the thread that starts it
        before = confirmed
    wait_for(lambda: confirmed > before + 500)
    done.set()
    load.join()

    wait_for(lambda: confirmed <= inbox())


def test_an_alarm_fails_publishing_in_time_is_noticed_by_the_idle_and_the_new_and_ends_by_itself(
    servers: PrivateServers, inbox: Callable[[], int], lateness: Lateness
) -> None:
    async def main() -> None:
        async with publishing(servers, seconds=1.0, useless=1.0) as busy, publishing(servers) as idle:
            async with in_alarm(servers):
                new = Publisher(servers.amqp_url, "test", timeout=1.0)
                new.start()
                first, first_took = await fault(post(busy))
                while first is None:  # the broker takes a moment to act on its alarm
                    first, first_took = await fault(post(busy))
                assert first_took < 1.5 + lateness()
                for publisher in (busy, idle):
                    assert IN_ALARM == await until_not_ready(publisher)
                assert (IN_ALARM, True) == await confirmed_within(busy, 0.1, lateness)
                assert IN_ALARM == await until_not_ready(new, but=AWAY)
                assert busy.ending is None  # it has waited for longer than a broker may be silent
            for publisher in (busy, idle, new):
                await until_ready(publisher)
            assert (None, True) == await confirmed_within(busy, 1.0, lateness)
            await new.close()

    asyncio.run(main())


@asynccontextmanager
async def in_alarm(servers: PrivateServers) -> AsyncIterator[None]:
    entered = alarm(servers)
    await asyncio.to_thread(entered.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(entered.__exit__, None, None, None)


def test_what_somebody_deletes_on_the_broker_is_declared_again(
    servers: PrivateServers, inbox: Callable[[], int], lateness: Lateness
) -> None:
    async def main() -> None:
        async with publishing(servers) as publisher:
            await post(publisher)
            await asyncio.to_thread(delete_exchange, servers)
            why, seconds = await fault(post(publisher))
            assert why is not None
            assert seconds < 1.0 + lateness()
            await until_ready(publisher)
            assert (None, True) == await confirmed_within(publisher, 1.0, lateness)

    asyncio.run(main())

    wait_for(lambda: inbox() == 2)


def delete_exchange(servers: PrivateServers) -> None:
    with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
        connection.channel().exchange_delete(RECEIVED)


def delete_topology(servers: PrivateServers) -> None:
    """Leaves the broker as it was before its first client."""
    with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
        channel = connection.channel()
        for method, arguments in TOPOLOGY:
            if method == "queue_declare":
                channel.queue_delete(arguments["queue"])
            elif method == "exchange_declare":
                channel.exchange_delete(arguments["exchange"])


def test_an_unreachable_broker_is_told_and_leaves_nothing_hanging(lateness: Lateness) -> None:
    async def main() -> tuple[str | None, float]:
        publisher = Publisher("amqp://guest:guest@127.0.0.1:1/%2F", "test")
        publisher.start()
        try:
            await asyncio.sleep(0.5)
            return await fault(post(publisher))
        finally:
            await publisher.close()

    why, seconds = asyncio.run(main())

    assert AWAY == why
    assert seconds < 0.1 + lateness()


@contextmanager
def threaded(servers: PrivateServers) -> Iterator[PublisherThread]:
    publisher = PublisherThread(servers.amqp_url, "test")
    wait_for(lambda: publisher.ready() is None, RECOVERY)
    yield publisher
    publisher.close()


def outgoing(count: int, exchange: str = RECEIVED) -> list[Outgoing]:
    return [Outgoing(exchange, "acme.shop", b"{}", DURABLE) for _ in range(count)]


def test_a_batch_is_published_from_a_thread_whatever_its_size(servers: PrivateServers, inbox: Callable[[], int]) -> None:
    with threaded(servers) as publisher:
        assert [] == publisher.publish_all([], 5.0)
        assert [True] * 9000 == publisher.publish_all(outgoing(9000), 30.0)
        assert [True, False, True] == publisher.publish_all([*outgoing(1), *outgoing(1, ""), *outgoing(1)], 5.0)

    wait_for(lambda: inbox() == 9002)


def test_a_batch_is_not_waited_for_beyond_its_deadline(
    servers: PrivateServers, inbox: Callable[[], int], lateness: Lateness
) -> None:
    with threaded(servers) as publisher, frozen(servers.rabbitmq_pid):
        began = time.monotonic()
        confirmed = publisher.publish_all(outgoing(3000), 0.5)
        took = time.monotonic() - began

    assert [False] * 3000 == confirmed
    assert took < 1.5 + lateness()


def test_a_closed_publisher_confirms_nothing(servers: PrivateServers, inbox: Callable[[], int]) -> None:
    with threaded(servers) as publisher:
        pass

    assert [False, False] == publisher.publish_all(outgoing(2), 5.0)
    publisher.close()


def test_a_process_that_ends_without_closing_does_not_hang(servers: PrivateServers) -> None:
    program = (
        "import sys, time\nfrom workers.amqp.publisher_thread import PublisherThread\n"
        "publisher = PublisherThread(sys.argv[1], 'test')\n"
        "while publisher.ready(): time.sleep(0.02)"
    )

    assert 0 == subprocess.run([sys.executable, "-c", program, servers.amqp_url], timeout=60, check=False).returncode
