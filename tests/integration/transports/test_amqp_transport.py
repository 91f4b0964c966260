"""Delivery to an exchange of a real broker: confirmed, routed, and not affected by other endpoints' mistakes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError

from ops.servers.private import PrivateServers
from schemas.config.amqp_target import AmqpTarget
from schemas.delivery import OURS, UNSENDABLE, Delivery, Receipt
from schemas.endpoint import Endpoint
from support.broker import Cable
from support.net.freezing import frozen
from support.queues import depth
from support.sending import ATTRIBUTES, LOCAL, run, sample
from workers.amqp import link
from workers.transports import amqp
from workers.transports.amqp import LONGEST, AmqpSender, outgoing

Send = Callable[..., list[Receipt]]


def to(exchange: str, routing_key: str = "{tenant}.{type}") -> Endpoint:
    return Endpoint(1, "acme", "bus", "", transport="amqp", target=AmqpTarget(exchange, routing_key))


@pytest.fixture
def channel(servers: PrivateServers) -> Iterator[BlockingChannel]:
    """A channel, with the durable topic exchange `bus`, and the queue `taken` bound to it for all of acme."""
    connection = pika.BlockingConnection(pika.URLParameters(servers.amqp_url))
    channel = connection.channel()
    channel.exchange_declare("bus", "topic", durable=True)
    channel.queue_declare("taken", durable=True)
    channel.queue_bind("taken", "bus", "acme.#")
    yield channel
    with suppress(AMQPError):  # a test may have killed the broker
        connection.close()
    with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
        connection.channel().queue_delete("taken")
        connection.channel().exchange_delete("bus")


@pytest.fixture
def tried(servers: PrivateServers) -> Callable[..., Receipt]:
    """Makes one try; returns its receipt."""

    def tried(endpoint: Endpoint, delivery: Delivery | None = None, seconds: float = 10.0) -> Receipt:
        return within(servers, lambda sender: sender.send(endpoint, delivery or sample(), seconds))

    return tried


def within(servers: PrivateServers, work: Callable[[AmqpSender], Awaitable]) -> object:
    return run(AmqpSender, work, replace(LOCAL, amqp_url=servers.amqp_url))  # type: ignore[arg-type]


async def sent(sender: AmqpSender, *endpoints: Endpoint, seconds: float = 10.0) -> list[str | None]:
    """Sends to all endpoints at once; returns the errors."""
    found = await asyncio.gather(*(sender.send(each, sample(number=n), seconds) for n, each in enumerate(endpoints)))
    return [receipt.error for receipt in found]


def test_a_delivery_is_a_cloudevent_in_binary_mode_that_lasts(channel, tried) -> None:
    receipt = tried(to("bus"))

    method, properties, body = channel.basic_get("taken", auto_ack=True)
    assert (None, 200, None) == (receipt.error, receipt.status, receipt.reused)
    assert ("acme.order.paid", b'{"amount": 1.10}') == (method.routing_key, body)
    assert ("e-1", "application/json", 2) == (properties.message_id, properties.content_type, properties.delivery_mode)
    traceparent = properties.headers.pop("traceparent")
    expected = {f"cloudEvents:{name}": value for name, value in ATTRIBUTES.items() if name != "datacontenttype"}
    assert (
        expected
        | {
            "cloudEvents:tenant": "acme",
            "cloudEvents:chain": "00000000000000000000000000000005",
            "cloudEvents:chainseq": "1",
            "cloudEvents:chainhash": "68" * 32,
            "cloudEvents:prevhash": "70" * 32,
        }
        == properties.headers
    )
    assert traceparent.startswith("00-")


def test_attributes_are_as_they_are_and_not_as_a_url_would_have_them(channel, tried) -> None:
    tried(to("bus"), sample(subject="Zoë / 100 %", id="e 1"))

    _method, properties, _body = channel.basic_get("taken", auto_ack=True)
    assert ("Zoë / 100 %", "e 1") == tuple(properties.headers[f"cloudEvents:{name}"] for name in ("subject", "id"))
    assert "evt_" + "66" * 16 == properties.message_id


def test_a_body_is_the_bytes_that_were_received(channel, tried) -> None:
    body = bytes(range(256)) * 2000  # several frames
    tried(to("bus"), sample(body, datacontenttype="no type"))

    _method, properties, taken = channel.basic_get("taken", auto_ack=True)
    assert (body, "application/octet-stream") == (taken, properties.content_type)


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("{tenant}.{type}", "acme.order.paid"),
        ("{tenant}.{source}.{subject}", "acme.shop.order {type}"),
        ("fixed", "fixed"),
        ("{id}{}", "{id}{}"),
    ],
)
def test_a_routing_key_is_filled_in_once(template, key) -> None:
    assert key == outgoing(to("bus", template), sample(subject="order {type}"), b"r" * 24).routing_key


def test_many_at_once_share_one_connection(servers, channel) -> None:
    async def main(sender: AmqpSender) -> list[str | None]:
        return await sent(sender, *[to("bus")] * 500)

    assert [None] * 500 == within(servers, main)
    assert 500 == depth(channel, "taken")


def test_what_no_queue_takes_is_tried_again(channel, tried) -> None:
    receipt = tried(to("bus", "nobody.listens"))

    assert ("unroutable", 312, False) == (receipt.error, receipt.status, receipt.error in OURS)
    assert "'bus' with routing key 'nobody.listens'" in (receipt.detail or "")


def test_what_a_full_queue_refuses_is_tried_again(channel, tried) -> None:
    channel.queue_declare("full", exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    channel.queue_bind("full", "bus", "full")
    for _ in range(3):
        receipt = tried(to("bus", "full"))

    assert "rejected" == receipt.error


def test_an_exchange_that_is_not_there_is_said_to_be_missing_and_disturbs_nobody(servers, channel) -> None:
    async def main(sender: AmqpSender) -> tuple[list[str | None], str | None]:
        return await sent(sender, *[to("bus"), to("missing")] * 50), sender._publisher.ending  # type: ignore[union-attr]

    errors, ending = within(servers, main)  # type: ignore[misc]

    assert [None, "connect"] * 50 == errors
    assert ending is None  # the shared channel was never closed
    assert 50 == depth(channel, "taken")


def test_an_exchange_that_comes_later_is_found(servers, channel) -> None:
    async def main(sender: AmqpSender) -> list[str | None]:
        first = await sent(sender, to("later"))
        channel.exchange_declare("later", "fanout")
        channel.queue_bind("taken", "later")
        await asyncio.sleep(1.1)
        return first + await sent(sender, to("later"))

    assert ["connect", None] == within(servers, main)
    channel.exchange_delete("later")


def test_an_exchange_that_goes_costs_nobody_else_a_delivery(servers, channel) -> None:
    """The sender has seen it, so it publishes: the broker closes the channel, with everything in flight."""
    channel.exchange_declare("going", "fanout")
    channel.queue_bind("taken", "going")

    async def main(sender: AmqpSender) -> tuple[list, list, list, str | None]:
        first = await sent(sender, to("going"))
        channel.exchange_delete("going")
        second = await sent(sender, *[to("bus")] * 20, to("going"), *[to("bus")] * 20)
        third = await sent(sender, to("going"), to("bus"))
        return first, second, third, sender._publisher.ending  # type: ignore[union-attr]

    first, second, third, ending = within(servers, main)  # type: ignore[misc]

    assert [None] == first
    assert [None] * 20 + ["connect"] + [None] * 20 == second
    assert ["connect", None] == third
    assert "no exchange 'going'" in ending
    assert depth(channel, "taken") >= 42  # messages in flight may have been published twice, under one id


def test_an_exchange_that_nobody_may_publish_to_costs_nobody_else_a_delivery(servers, channel, lateness) -> None:
    channel.exchange_declare("inner", "fanout", internal=True)

    async def main(sender: AmqpSender) -> tuple[list, list]:
        first = await sent(sender, *[to("bus")] * 20, to("inner"), *[to("bus")] * 20)
        return first, [await sender.send(to("inner"), sample(), 5.0) for _ in range(3)]

    first, barred = within(servers, main)  # type: ignore[misc]
    channel.exchange_delete("inner")

    assert [None] * 20 + ["connect"] + [None] * 20 == first
    assert ["connect"] * 3 == [receipt.error for receipt in barred]
    assert "ACCESS_REFUSED" in (barred[0].detail or "")
    assert all(receipt.duration < 0.1 + lateness() for receipt in barred)  # they fail without using the channel


def test_what_fits_into_no_frame_is_unsendable_and_disturbs_nobody(servers, channel) -> None:
    huge = sample(**{f"x{n}": "y" * 2000 for n in range(100)})

    async def main(sender: AmqpSender) -> tuple[Receipt, list, Receipt]:
        key = await sender.send(to("bus", "{subject}"), sample(subject="s" * 300), 5.0)
        return await sender.send(to("bus"), huge, 5.0), await sent(sender, to("bus")), key

    headers, other, key = within(servers, main)  # type: ignore[misc]

    assert (UNSENDABLE, [None], UNSENDABLE) == (headers.error, other, key.error)


def test_what_no_broker_takes_is_unsendable_and_disturbs_nobody(servers, channel) -> None:
    """A broker closes the channel because of a body that is too large, and everything in flight fails."""

    async def main(sender: AmqpSender) -> tuple[Receipt, list]:
        return await sender.send(to("bus"), replace(sample(), body=bytes(LONGEST + 1)), 5.0), await sent(sender, to("bus"))

    large, other = within(servers, main)  # type: ignore[misc]

    assert (UNSENDABLE, True, [None]) == (large.error, f"takes {LONGEST}" in large.detail, other)


def test_a_broker_that_is_away_is_our_own_fault_and_is_found_again(servers, channel, lateness) -> None:
    async def main(sender: AmqpSender) -> None:
        async def tried(seconds: float) -> tuple[str | None, float]:
            began = time.monotonic()
            [error] = await sent(sender, to("bus"), seconds=seconds)
            return error, time.monotonic() - began

        first = await tried(30.0)
        await asyncio.to_thread(cable.cut)
        await tried(1.0)  # fails at once if the loss was not noticed before
        hurried, patient = await tried(1.0), await tried(20.0)
        await asyncio.to_thread(cable.mend)
        again = await tried(30.0)

        assert [None, "broker", "broker", None] == [each[0] for each in (first, hurried, patient, again)]
        assert 0.9 < hurried[1] < 1.5 + lateness()  # by its own deadline
        assert patient[1] < 4 + lateness()  # by the limit of 3 s for waiting for a broker

    with Cable(servers.amqp_url) as cable:
        run(AmqpSender, main, replace(LOCAL, amqp_url=cable.url))  # type: ignore[arg-type]


def test_a_broker_that_is_back_is_found_soon_while_a_delivery_waits_for_it(servers, channel, monkeypatch) -> None:
    """A reconnection wait that has begun is cut short: here it is at least half a minute, and the delivery has 20 s."""
    monkeypatch.setattr(link, "_FIRST_WAIT", 60.0)
    monkeypatch.setattr(link, "_LONGEST_WAIT", 60.0)
    monkeypatch.setattr(amqp, "READY_SECONDS", 20.0)

    async def main(sender: AmqpSender) -> Receipt:
        sending = asyncio.create_task(sender.send(to("bus"), sample(), 30.0))
        await asyncio.sleep(0.3)  # by then one connection was refused
        await asyncio.to_thread(cable.mend)
        receipt = await sending
        await sender.close()
        return receipt

    with Cable(servers.amqp_url) as cable:
        cable.cut()
        receipt = run(AmqpSender, main, replace(LOCAL, amqp_url=cable.url))

    assert (None, 200) == (receipt.error, receipt.status), receipt.detail
    assert 1 == depth(channel, "taken")


def test_a_broker_that_says_nothing_is_given_up_at_the_deadline(servers, channel, lateness) -> None:
    async def main(sender: AmqpSender) -> Receipt:
        await sent(sender, to("bus"))
        with frozen(servers.rabbitmq_pid):
            return await sender.send(to("bus"), sample(), 0.7)

    receipt = within(servers, main)

    assert "broker" == receipt.error
    assert 0.6 <= receipt.duration < 0.9 + lateness()


def test_a_sender_that_never_sent_anything_is_not_connected() -> None:
    run(AmqpSender, lambda sender: asyncio.sleep(0), replace(LOCAL, amqp_url="amqp://nobody@127.0.0.1:1/"))  # type: ignore[arg-type]
