"""The depths of the queues, for `waxseal status` and for the collector."""

import asyncio
import time
from typing import Final

import pika
from dramatiq.common import dq_name, xq_name
from pika.exceptions import AMQPChannelError, AMQPConnectionError

from workers.amqp.dramatiq_broker import MAIL_QUEUES, QUEUE
from workers.amqp.session import Lost, Refused, Session
from workers.amqp.topology import INBOX, NOT_FOUND, UNROUTED

QUEUES: Final = (INBOX, UNROUTED, QUEUE, dq_name(QUEUE), xq_name(QUEUE), *MAIL_QUEUES)
_LOGIN: Final = 3.0  # seconds; less than `_DEADLINE`, because pika logs at length when it is cancelled during login
_DEADLINE: Final = 5.0  # seconds for the whole enquiry


def depths(amqp_url: str) -> dict[str, int | None]:
    """The ready messages in each queue, without those that a consumer holds; otherwise as `queues`."""
    return {queue: state and state[0] for queue, state in queues(amqp_url).items()}


def queues(amqp_url: str) -> dict[str, tuple[int, int] | None]:
    """The numbers of ready messages and consumers of each queue; None for a queue that does not exist yet.

    Declares nothing. Raises pika's `AMQPError` when the broker does not answer within five seconds, or with the broker's words
    when it refuses to tell, as a user without permission.
    """
    began = time.monotonic()
    try:
        return asyncio.run(_ask(amqp_url))
    except (Lost, TimeoutError) as error:
        waited = time.monotonic() - began
        why = str(error) if waited < _LOGIN else f"no answer within {waited:.0f} s"  # pika's text is long
        raise AMQPConnectionError(why) from error
    except Refused as refused:
        raise AMQPChannelError(str(refused)) from refused


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
    """Ask on a separate channel, because the broker closes it if the queue is missing. Raises `Lost`, or `Refused`."""
    async with session.side_channel() as channel:
        try:
            answer = await channel.do("queue_declare", {"queue": queue, "passive": True})
        except Refused as refused:
            if refused.code == NOT_FOUND:
                return None
            raise
    return answer.method.message_count, answer.method.consumer_count
