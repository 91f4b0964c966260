"""The depths of the queues, for `waxseal status` and for the collector."""

from typing import Final

from dramatiq.common import dq_name, xq_name

from workers.amqp.dramatiq_broker import MAIL_QUEUES, QUEUE
from workers.amqp.enquiry import enquire
from workers.amqp.session import Refused, Session
from workers.amqp.topology import INBOX, NOT_FOUND, UNROUTED

QUEUES: Final = (INBOX, UNROUTED, QUEUE, dq_name(QUEUE), xq_name(QUEUE), *MAIL_QUEUES)
_DEADLINE: Final = 5.0  # seconds for the whole enquiry


def depths(amqp_url: str) -> dict[str, int | None]:
    """The ready messages in each queue, without those that a consumer holds; otherwise as `queues`."""
    return {queue: state and state[0] for queue, state in queues(amqp_url).items()}


def queues(amqp_url: str) -> dict[str, tuple[int, int] | None]:
    """The numbers of ready messages and consumers of each queue; None for a queue that does not exist yet.

    Declares nothing. Raises pika's `AMQPError` when the broker does not answer within five seconds, or with the broker's words
    when it refuses to tell, as a user without permission.
    """
    return enquire(amqp_url, _ask, _DEADLINE)


async def _ask(session: Session) -> dict[str, tuple[int, int] | None]:
    return {queue: await _state(session, queue) for queue in QUEUES}


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
