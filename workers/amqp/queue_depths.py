"""The depths of the queues, for `waxseal status` and for the collector."""

import asyncio
import time
from functools import partial
from typing import Any, Final

import pika
from dramatiq.common import dq_name, xq_name
from pika.channel import Channel
from pika.exceptions import AMQPConnectionError

from workers.amqp.dramatiq_broker import MAIL_QUEUES, QUEUE
from workers.amqp.session import Lost, Session
from workers.amqp.topology import INBOX, UNROUTED

QUEUES: Final = (INBOX, UNROUTED, QUEUE, dq_name(QUEUE), xq_name(QUEUE), *MAIL_QUEUES)
_LOGIN: Final = 3.0  # seconds; less than `_DEADLINE`, because pika logs at length when it is cancelled during login
_DEADLINE: Final = 5.0  # seconds for the whole enquiry


def depths(amqp_url: str) -> dict[str, int | None]:
    """The ready messages in each queue, without those that a consumer holds; otherwise as `queues`."""
    return {queue: state and state[0] for queue, state in queues(amqp_url).items()}


def queues(amqp_url: str) -> dict[str, tuple[int, int] | None]:
    """The numbers of ready messages and consumers of each queue; None for a queue that does not exist yet.

    Declares nothing. Raises pika's `AMQPError` when the broker does not answer within five seconds.
    """
    began = time.monotonic()
    try:
        return asyncio.run(_ask(amqp_url))
    except (Lost, TimeoutError) as error:
        waited = time.monotonic() - began
        why = str(error) if waited < _LOGIN else f"no answer within {waited:.0f} s"  # pika's text is long
        raise AMQPConnectionError(why) from error


async def _ask(amqp_url: str) -> dict[str, tuple[int, int] | None]:
    parameters = pika.URLParameters(amqp_url)
    parameters.socket_timeout = parameters.stack_timeout = _LOGIN
    session = Session(parameters)
    try:
        async with asyncio.timeout(_DEADLINE):
            await session.opened()
            return {queue: await _state(session, queue) for queue in QUEUES}
    finally:
        await session.close()


async def _state(session: Session, queue: str) -> tuple[int, int] | None:
    """Ask on a separate channel, because the broker closes it if the queue is missing."""
    channel = await session.channel()
    answer = await session.reply(partial(_declare, channel, queue))
    if answer is None:
        return None
    channel.close()
    return answer.method.message_count, answer.method.consumer_count


def _declare(channel: Channel, queue: str, reply: Any) -> None:
    channel.add_on_close_callback(lambda _channel, _error: reply(None))
    channel.queue_declare(queue, passive=True, callback=reply)
