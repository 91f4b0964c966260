"""One enquiry to the broker, on a connection and an event loop of its own: for commands and for the collector."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import pika
from pika.exceptions import AMQPChannelError, AMQPConnectionError

from workers.amqp.brokers import Brokers
from workers.amqp.session import Lost, Refused, Session

_LOGIN: Final = 3.0  # seconds; less than the whole may take, because pika logs at length when it is cancelled during login

_Answer = TypeVar("_Answer")


def enquire(amqp_url: str, ask: Callable[[Session], Awaitable[_Answer]], seconds: float) -> _Answer:
    """What `ask` finds out on an open session, with the first broker of the URLs that answers.

    Raises pika's `AMQPError` when the broker does not answer within that many seconds, or with the broker's words when it
    refuses to tell, as a user without permission.
    """
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # it logs several lines for what is raised here in one
    began = time.monotonic()
    try:
        return asyncio.run(_ask(amqp_url, ask, seconds))
    except (Lost, TimeoutError) as error:
        waited = time.monotonic() - began
        why = str(error) if waited < _LOGIN else f"no answer within {waited:.0f} s"  # pika's text is long
        raise AMQPConnectionError(why) from error
    except Refused as refused:
        raise AMQPChannelError(str(refused)) from refused


async def _ask(amqp_url: str, ask: Callable[[Session], Awaitable[_Answer]], seconds: float) -> _Answer:
    failed = []
    async with asyncio.timeout(seconds):
        for each in Brokers(amqp_url).all():
            try:
                return await _asked_of(await _opened(each), ask)
            except Lost as lost:
                failed.append((f"{each.host}:{each.port}", str(lost)))
    raise Lost(failed[0][1] if len(failed) == 1 else "; ".join(map(": ".join, failed)))


async def _opened(parameters: pika.URLParameters) -> Session:
    parameters.socket_timeout = parameters.stack_timeout = _LOGIN
    session = Session(parameters)
    try:
        await session.opened()
    except BaseException:
        await session.close()
        raise
    return session


async def _asked_of(session: Session, ask: Callable[[Session], Awaitable[_Answer]]) -> _Answer:
    try:
        return await ask(session)
    finally:
        await session.close()
