"""The health check of RabbitMQ, over a connection of its own."""

import asyncio
import logging
from functools import partial
from typing import Any, Final

import pika
from pika.channel import Channel

from ops.settings import Settings
from ops.telemetry.pulse import Pulse
from workers.amqp.brokers import Brokers
from workers.amqp.session import Session

_LOGIN: Final = 3.0  # seconds; less than `_ANSWER`, because pika logs at length when it is cancelled during login
_ANSWER: Final = 5.0  # seconds to log in and answer
_HEARTBEAT: Final = 30  # seconds; the checks notice a dead broker sooner


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
