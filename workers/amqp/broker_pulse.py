"""What is asked of RabbitMQ over a connection of its own: whether it works, and whether it overlooks a consumer."""

import asyncio
import logging
import threading
import time
from contextlib import suppress
from functools import partial
from typing import Any, Final

import pika
from pika.channel import Channel
from pika.exceptions import AMQPConnectionError, AMQPError

from ops.settings import Settings
from ops.telemetry.pulse import Pulse
from workers.amqp.brokers import Brokers
from workers.amqp.session import Session

_LOGIN: Final = 3.0  # seconds; less than `_ANSWER`, because pika logs at length when it is cancelled during login
_ANSWER: Final = 5.0  # seconds to log in and answer
_HEARTBEAT: Final = 30  # seconds; the checks notice a dead broker sooner
_RENEWED: Final = 60.0  # seconds after which to connect anew: behind one address there may be several nodes

LOOK: Final = 3.0  # seconds without a message until another node is asked, and between two questions


def of_rabbitmq(settings: Settings, process: str) -> Pulse:
    """The health check of RabbitMQ; `process` is shown in the broker's list of connections."""
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # pika logs ten lines for each attempt; we log one
    return Pulse("RabbitMQ", _HealthCheck(settings.amqp_url, process), settings.unready_after)


class _HealthCheck:
    """One check, for one thread. Its event loop runs only during a check, which is often enough for heartbeats."""

    def __init__(self, amqp_url: str, process: str) -> None:
        self._brokers = Brokers(amqp_url)
        self._process = process
        self._loop = asyncio.new_event_loop()
        self._session: Session | None = None
        self._channel: Channel

    def __call__(self) -> None:
        """Return when the broker has answered. Raises `Lost`, `TimeoutError`, or pika's errors."""
        self._loop.run_until_complete(self._ask())

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(_ANSWER):
                if self._session is None:
                    self._session = Session(self._parameters())
                    await self._session.opened()
                    self._channel = await self._session.channel()
                # basic.qos changes nothing here and needs no permission.
                await self._session.reply(partial(_qos, self._channel))
        except BaseException:
            await self._disconnect()
            raise

    def _parameters(self) -> pika.URLParameters:
        parameters = self._brokers.next()
        parameters.heartbeat = _HEARTBEAT
        parameters.socket_timeout = parameters.stack_timeout = _LOGIN
        parameters.client_properties = {"connection_name": f"waxseal {self._process} pulse"}
        return parameters

    async def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _qos(channel: Channel, reply: Any) -> None:
    channel.basic_qos(prefetch_count=1, callback=reply)


class ConsumerOverlooked(AMQPConnectionError):  # type: ignore[misc]
    """The broker gives a consumer nothing, though messages wait in its queue."""


class Overlooked:
    """Ends the connection of a consumer that has nothing in hand and is given nothing, while messages wait in its queue.

    A node of RabbitMQ 4.3 that is cut off from its cluster keeps its connections, their consumers and heartbeats for as long as
    it is cut off, and answers passive declarations. Only other nodes know better, so one of them is asked, where there are
    several. In a thread of its own, until `close`.
    """

    def __init__(self, amqp_url: str, queue: str, connection: pika.BlockingConnection) -> None:
        self._queue = queue
        self._inner = connection._impl  # noqa: SLF001 - pika ends a connection from another thread only by a handshake
        self._brokers = Brokers(amqp_url)
        self._brokers.leave(self._inner.params)
        self._came = time.monotonic()
        self._session: Session | None = None
        self._renewed = 0.0
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="overlooked", daemon=True).start()

    def came(self) -> None:
        """Note that the consumer was given a message, or holds one."""
        self._came = time.monotonic()

    def close(self) -> None:
        """Stop watching. Does not wait."""
        self._over.set()

    def _watch(self) -> None:
        loop = asyncio.new_event_loop()
        waited: float | None = None  # when the last message had come, if others waited at the last look
        while not self._over.wait(LOOK):
            came = self._came
            waits = time.monotonic() - came >= LOOK and loop.run_until_complete(self._waits())
            if waits and waited == came == self._came:
                self._end()
                break
            waited = came if waits else None
        loop.run_until_complete(self._disconnect())
        loop.close()

    def _end(self) -> None:
        error = ConsumerOverlooked(f"messages wait in {self._queue}, and the broker gives none")
        with suppress(AMQPError):  # it has just been closed
            self._inner._adapter_add_callback_threadsafe(lambda: self._inner._terminate_stream(error))  # noqa: SLF001

    async def _waits(self) -> bool:
        """Whether messages wait, as far as a node tells. Raises nothing."""
        try:
            async with asyncio.timeout(_ANSWER):
                if time.monotonic() >= self._renewed:
                    await self._disconnect()
                if self._session is None:
                    await self._connect()
                return await self._count() > 0
        except Exception:  # noqa: BLE001 - whatever it is, the next look may succeed
            await self._disconnect()
            return False

    async def _connect(self) -> None:
        parameters = self._brokers.all()[0]
        parameters.heartbeat = _HEARTBEAT
        parameters.socket_timeout = parameters.stack_timeout = _LOGIN
        parameters.client_properties = {"connection_name": f"waxseal watch of {self._queue}"}
        self._session, self._renewed = Session(parameters), time.monotonic() + _RENEWED
        await self._session.opened()

    async def _count(self) -> int:
        assert self._session is not None
        async with self._session.side_channel() as aside:
            found: Any = await aside.do("queue_declare", {"queue": self._queue, "passive": True})
        return int(found.method.message_count)

    async def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()
