"""How long messages wait in the inbox, found by a message of our own that an ingest process answers.

What an ingest process holds shows the age of what it works on. Nothing shows that nobody takes messages out of the inbox, or
that the broker gives none to those who wait for them, except a message that does not arrive.
"""

import asyncio
import time
from functools import partial
from typing import Any, Final

import pika
from pika.channel import Channel
from pika.spec import Basic

from schemas.message import PROBE_KEY, PUBLISHED_AT
from workers.amqp.enquiry import enquire
from workers.amqp.session import Session
from workers.amqp.topology import RECEIVED

#: Where ingest processes answer. It goes away by itself; a lost answer is a probe that is answered late.
ANSWERS: Final = "waxseal.probes"
_ARGUMENTS: Final = {"x-expires": 3_600_000, "x-max-length": 100}

_DEADLINE: Final = 5.0  # seconds for all of a call
_AT_ONCE: Final = 0.5  # seconds within which a healthy inbox answers
_LOST: Final = 60.0  # seconds after which an answer may have been lost
_LOOK: Final = 0.05  # seconds between two looks for the answer


class InboxProbe:
    """Probes the inbox at each call, for one thread.

    While a probe waits no other is sent, except when it has waited twice as long as at the last time: its answer may have been
    lost, and who takes the later one has taken the first. So a day without an answer leaves a dozen probes in the inbox.
    """

    def __init__(self, amqp_url: str) -> None:
        self._amqp_url = amqp_url
        self._sent: float | None = None  # when the probe that waits was published, in Unix seconds
        self._again = 0.0  # when to send one beside it

    def __call__(self) -> float:
        """The seconds that the last probe waited, or has waited until now. Raises pika's `AMQPError`."""
        return enquire(self._amqp_url, self._ask, _DEADLINE)

    async def _ask(self, session: Session) -> float:
        async with session.side_channel() as aside:
            await aside.do("queue_declare", {"queue": ANSWERS, "arguments": _ARGUMENTS})
        channel = await session.channel()
        channel.add_on_close_callback(lambda _channel, error: session.end(error))
        return await self._probed(session, channel)

    async def _probed(self, session: Session, channel: Channel) -> float:
        waited = await self._answered(session, channel)
        now = time.time()
        if self._sent is None or now >= self._again:
            self._sent = _publish(channel) if self._sent is None else min(self._sent, _publish(channel))
            self._again = now + max(_LOST, now - self._sent)
            until = time.monotonic() + _AT_ONCE
            while self._sent is not None and time.monotonic() < until:
                await asyncio.sleep(_LOOK)
                waited = await self._answered(session, channel)
        return waited if self._sent is None else max(0.0, time.time() - self._sent)

    async def _answered(self, session: Session, channel: Channel) -> float:
        """Take the answers that there are; give the seconds that the last probe of ours waited, if it was answered."""
        waited = 0.0
        while (answer := await session.reply(partial(_get, channel))) is not None:
            published, arrived = map(float, answer.split())
            if self._sent is not None and published >= self._sent:
                self._sent, waited = None, max(0.0, arrived - published)
        return waited


def answer_to(published_at: float) -> bytes:
    """What an ingest process answers to a probe that arrives now."""
    return f"{published_at!r} {time.time()!r}".encode()


def _publish(channel: Channel) -> float:
    now = time.time()
    channel.basic_publish(RECEIVED, PROBE_KEY, b"", pika.BasicProperties(headers={PUBLISHED_AT: repr(now)}))
    return now


def _get(channel: Channel, reply: Any) -> None:
    """Call `reply` with the body of the next answer, or with None if there is none."""
    channel.add_callback(lambda _frame: reply(None), [Basic.GetEmpty])
    channel.basic_get(ANSWERS, lambda _channel, _method, _properties, body: reply(body), auto_ack=True)
