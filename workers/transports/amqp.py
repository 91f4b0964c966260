"""Sends over AMQP: publishes to an endpoint's exchange, with confirms, on a connection of its own.

If we publish to an exchange that is missing, or without permission, the broker closes the channel, and other deliveries in
flight fail. So the sender first asks whether the exchange exists. If it vanishes between the question and the publishing, the
other deliveries are published once more under the same id, and the exchange that caused it is barred for a while.
"""

import asyncio
import re
from collections import OrderedDict
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from pika import BasicProperties

from pipeline.delivery.signing import RANDOM_BYTES, described, media_type, trace_headers, webhook_id
from schemas.config.amqp_target import AmqpTarget
from schemas.delivery import UNSENDABLE, Delivery, Receipt
from schemas.endpoint import Endpoint
from workers.amqp.confirm_window import REFUSED, RETURNED, Outgoing
from workers.amqp.link import AWAY, LOST
from workers.amqp.publisher import UNSENT, WITHHELD, Publisher
from workers.amqp.session import Lost
from workers.net.lease_deadline import Check, LeaseEnded, unleased
from workers.net.terms import Terms
from workers.transports.transport import Fresh, said, unsendable

READY_SECONDS: Final = 3.0  # to wait for a broker that is away
SEEN_SECONDS: Final = 5.0  # for which the answer that an exchange exists is cached
MISSING_SECONDS: Final = 1.0  # for which the answer that it does not exist is cached
BARRED_SECONDS: Final = 30.0  # without deliveries to an exchange because of which the broker closed the channel
EXCHANGES: Final = 1000  # answers that are cached
LONGEST_KEY: Final = 255  # bytes
LONGEST: Final = 16 * 1024 * 1024  # bytes of a body: the broker closes the channel over a larger one

# The reply codes of AMQP 0-9-1, in place of a status.
_OK, _NO_ROUTE, _NOT_FOUND = 200, 312, 404

_CULPRIT: Final = re.compile(r"exchange '([^']+)'")
_PERSISTENT: Final = 2

Fault = tuple[str, str, int | None]  # class, detail, reply code


class AmqpSender:
    """Connects for the first delivery, and stays connected."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._fresh = Fresh(RANDOM_BYTES)
        self._publisher: Publisher | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._wait_until = 0.0  # on the loop's clock: when the last caller gives up waiting for the connection
        self._seen: OrderedDict[str, tuple[float, asyncio.Task[bool]]] = OrderedDict()  # exchange -> when asked, the answer
        self._barred: dict[str, tuple[float, str]] = {}  # exchange -> until when, and why
        self._loop: asyncio.AbstractEventLoop

    def open(self) -> None:
        """Remember the running loop."""
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._publisher is not None:
            await self._publisher.close()

    async def send(self, endpoint: Endpoint, delivery: Delivery, seconds: float, check: Check = unleased) -> Receipt:
        """Publish as mandatory; delivered when the broker has confirmed that a queue has the message."""
        now, began = datetime.now(UTC), self._loop.time()
        try:
            message = outgoing(endpoint, delivery, self._fresh())
        except Exception as error:  # noqa: BLE001 - whatever it is, the next attempt would fail alike
            return unsendable(error)
        try:
            async with asyncio.timeout(seconds):
                fault = await self._publish(message, began + seconds, check)
        except (TimeoutError, Lost) as error:
            fault = "broker", str(error) or f"the broker did not confirm it within {seconds:g} s", None
        except LeaseEnded:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this attempt's result
            fault = "internal", said(error), None
        kind, detail, status = fault or (None, None, _OK)
        return Receipt(now, self._loop.time() - began, status, kind, detail)

    async def _publish(self, message: Outgoing, until: float, check: Check) -> Fault | None:
        for _ in range(2):
            publisher = await self._ready()
            fault = await self._once(publisher, message, until, check)
            if fault not in (LOST, AWAY):
                break
            self._bar(publisher.ending or "")
        return _fault(fault, message) if isinstance(fault, str) else fault

    async def _once(self, publisher: Publisher, message: Outgoing, until: float, check: Check) -> Fault | str | None:
        """Publish once. None when the message is durable in a queue; else a `Fault`, or the publisher's reason."""
        barred_until, why = self._barred.get(message.exchange, (0.0, ""))
        if self._loop.time() < barred_until:
            return "connect", why, _NOT_FOUND
        try:
            if not await self._exists(publisher, message.exchange):
                return "connect", f"there is no exchange {message.exchange!r}", _NOT_FOUND
        except Lost:
            return LOST
        settled: asyncio.Future[str | None] = self._loop.create_future()
        publisher.send(message, until, lambda fault: None if settled.done() else settled.set_result(fault), check)
        fault = await settled
        if fault is WITHHELD:
            raise LeaseEnded
        return fault

    async def _ready(self) -> Publisher:
        """The connected publisher. Raises `Lost` when it does not connect within three seconds."""
        if self._publisher is None:
            self._publisher = Publisher(self._terms.amqp_url, "deliveries")
            self._publisher.start()
        publisher = self._publisher
        if publisher.ready() is not None:
            self._wait_until = self._loop.time() + READY_SECONDS
            if self._connecting is None or self._connecting.done():
                self._connecting = self._loop.create_task(self._connected(publisher))
            with suppress(TimeoutError):
                async with asyncio.timeout(READY_SECONDS):
                    await asyncio.shield(self._connecting)
            if (reason := publisher.ready()) is not None:
                raise Lost(reason)
        return publisher

    async def _connected(self, publisher: Publisher) -> None:
        """Poll for all callers of `_ready`, since hundreds that poll leave the link no time; end when the last has given up."""
        while publisher.ready() is not None and self._loop.time() < self._wait_until:
            publisher.want()
            await asyncio.sleep(0.02)

    async def _exists(self, publisher: Publisher, exchange: str) -> bool:
        """Whether the exchange existed a moment ago. Concurrent callers share one question."""
        asked, look = self._seen.get(exchange, (0.0, None))
        if look is None or self._loop.time() - asked > _believed(look):
            look = self._loop.create_task(publisher.exists(exchange))
            look.add_done_callback(lambda done: done.cancelled() or done.exception())  # the callers may be cancelled
            self._seen[exchange] = self._loop.time(), look
            self._seen.move_to_end(exchange)
            if len(self._seen) > EXCHANGES:
                self._seen.popitem(last=False)
        return await asyncio.shield(look)

    def _bar(self, ending: str) -> None:
        """Bar the exchange that the broker's reason for closing names."""
        match = _CULPRIT.search(ending)
        if match is not None:
            self._barred = {name: bar for name, bar in self._barred.items() if bar[0] > self._loop.time()}
            self._barred[match[1]] = self._loop.time() + BARRED_SECONDS, f"the broker: {ending}"[:500]


def outgoing(endpoint: Endpoint, delivery: Delivery, random: bytes) -> Outgoing:
    """The message, in the binary mode of the CloudEvents AMQP binding. `random` holds 24 fresh bytes."""
    if len(delivery.body) > LONGEST:
        raise ValueError(f"the body has {len(delivery.body)} bytes, and a broker takes {LONGEST} in one message")
    target = endpoint.target if isinstance(endpoint.target, AmqpTarget) else AmqpTarget()
    facts = described(delivery)
    key = _routing_key(target.routing_key, facts)
    content_type = facts.pop("datacontenttype")
    properties = BasicProperties(
        content_type=media_type(content_type),
        headers={
            **{f"cloudEvents:{name}": value for name, value in facts.items()},
            **trace_headers(delivery, facts, random),
        },
        delivery_mode=_PERSISTENT,
        message_id=webhook_id(facts["id"], delivery.fingerprint),
    )
    return Outgoing(target.exchange, key, delivery.body, properties)


def _routing_key(template: str, facts: dict[str, str]) -> str:
    """The template with its placeholders in braces replaced, once: braces in a value stay as they are."""
    key = re.sub(r"\{(tenant|type|source|subject)\}", lambda match: facts[match[1]], template)
    if len(key.encode()) > LONGEST_KEY:
        raise ValueError(f"the routing key has more than {LONGEST_KEY} bytes")
    return key


def _believed(look: asyncio.Task[bool]) -> float:
    """How many seconds an answer stays valid; without limit while the question is pending."""
    if not look.done():
        return float("inf")
    failed = look.cancelled() or look.exception() is not None
    return 0.0 if failed else SEEN_SECONDS if look.result() else MISSING_SECONDS


def _fault(reason: str, message: Outgoing) -> Fault:
    where = f"{message.exchange!r} with routing key {message.routing_key!r}"
    if reason == RETURNED:
        return "unroutable", f"no queue is bound to {where}", _NO_ROUTE
    if reason == REFUSED:
        return "rejected", f"a queue behind {where} did not take it", None
    return (UNSENDABLE if reason.startswith(UNSENT) else "broker"), reason, None
