"""Whether RabbitMQ answers, asked over a connection that serves nothing else."""

import asyncio
import logging
from functools import partial
from typing import Any, Final

import pika
from pika.channel import Channel

from ops.settings import Settings
from ops.telemetry.pulse import Pulse
from workers.amqp.session import Session

_LOGIN: Final = 3.0  # seconds; less than the next, because pika fails noisily when it is cut off while it logs in
_ANSWER: Final = 5.0  # seconds to log in and answer
_HEARTBEAT: Final = 30  # seconds; the questions find out sooner


def of_rabbitmq(settings: Settings, process: str) -> Pulse:
    """Asks RabbitMQ; `process` is shown among its connections."""
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # ten lines for each attempt; ours is one
    return Pulse("RabbitMQ", _Question(settings.amqp_url, process), settings.unready_after)


class _Question:
    """Asked by one thread. Its event loop turns only meanwhile, which is often enough for heartbeats."""

    def __init__(self, amqp_url: str, process: str) -> None:
        self._parameters = pika.URLParameters(amqp_url)
        self._parameters.heartbeat = _HEARTBEAT
        self._parameters.socket_timeout = self._parameters.stack_timeout = _LOGIN
        self._parameters.client_properties = {"connection_name": f"waxseal {process} pulse"}
        self._loop = asyncio.new_event_loop()
        self._session: Session | None = None
        self._channel: Channel

    def __call__(self) -> None:
        """Return when it has answered. Raises `Lost`, `TimeoutError`, or what pika raises."""
        self._loop.run_until_complete(self._ask())

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(_ANSWER):
                if self._session is None:
                    self._session = Session(self._parameters)
                    await self._session.opened()
                    self._channel = await self._session.channel()
                # Changes nothing and needs no right to anything.
                await self._session.reply(partial(_qos, self._channel))
        except BaseException:
            await self._hang_up()
            raise

    async def _hang_up(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _qos(channel: Channel, reply: Any) -> None:
    channel.basic_qos(prefetch_count=1, callback=reply)
