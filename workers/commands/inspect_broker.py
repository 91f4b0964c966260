"""Looks at the broker for `waxseal doctor`: its version and limits, its queues and exchanges, and whether it confirms."""

import asyncio
from functools import partial
from typing import Any, Final

from pika.channel import Channel

from ops.admin.doctor.broker_checks import MISSING, BrokerFacts
from workers.amqp.dramatiq_broker import DELIVER_TOPOLOGY
from workers.amqp.enquiry import enquire
from workers.amqp.session import Refused, Session
from workers.amqp.topology import NOT_FOUND, PROBE, Declaration, questions

_DEADLINE: Final = 8.0  # seconds for everything
_CONFIRM: Final = 3.0
#: The broker refuses to declare a queue that is there as one of another type; so it tells the type.
QUORUM: Final = {"x-queue-type": "quorum"}


def inspect_broker(amqp_url: str) -> BrokerFacts:
    """What the broker says. Raises pika's `AMQPError` when it does not answer within eight seconds.

    Each queue and exchange that is there is declared once more as the processes do, which changes nothing: a broker refuses
    that if it differs.
    """
    return enquire(amqp_url, _inspect, _DEADLINE)


async def _inspect(session: Session) -> BrokerFacts:
    blocked: list[str] = []
    session.connection.add_on_connection_blocked_callback(lambda _connection, frame: blocked.append(frame.method.reason))
    tuned = session.connection.params
    return BrokerFacts(
        version=str(session.connection.server_properties.get("version", "")),
        heartbeat=tuned.heartbeat or 0,
        channel_max=tuned.channel_max or 0,
        frame_max=tuned.frame_max or 0,
        queues=await _found(session, "queue_declare"),
        exchanges=await _found(session, "exchange_declare"),
        classic=await _classic(session),
        unconfirmed=await _unconfirmed(session, blocked),
    )


async def _found(session: Session, method: str) -> dict[str, str | None]:
    """What is wrong with each queue, or with each exchange; None if nothing is."""
    declared = [each for each in DELIVER_TOPOLOGY if each[0] == method]
    kind = method.partition("_")[0]
    return {each[1][kind]: await _fault(session, each) for each in declared}


async def _fault(session: Session, declaration: Declaration) -> str | None:
    ((question, _),) = questions([declaration])
    for asked in (question, declaration):
        async with session.side_channel() as channel:
            try:
                await channel.do(*asked)
            except Refused as refused:
                return MISSING if refused.code == NOT_FOUND else str(refused)
    return None


async def _classic(session: Session) -> list[str]:
    """The queues there that we leave the type of to the broker, and that it made classic ones."""
    open_types = [
        each for each in DELIVER_TOPOLOGY if each[0] == "queue_declare" and QUORUM.keys().isdisjoint(each[1]["arguments"])
    ]
    return [each[1]["queue"] for each in open_types if await _fault(session, _as_quorum(each)) not in (None, MISSING)]


def _as_quorum(declaration: Declaration) -> Declaration:
    method, arguments = declaration
    return method, {**arguments, "arguments": {**arguments["arguments"], **QUORUM}}


async def _unconfirmed(session: Session, blocked: list[str]) -> str | None:
    """Publish a message that no queue takes; gives None once it is confirmed, else why not."""
    if not await session.exists(PROBE):
        return None  # no process has ever run here; the exchanges say so
    channel: Channel = await session.channel()
    confirmed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    await session.reply(partial(_confirm, channel, confirmed))
    channel.basic_publish(PROBE, "", b"")
    try:
        async with asyncio.timeout(_CONFIRM):
            await session.settled(confirmed)
    except TimeoutError:
        return f"the broker is in alarm: {blocked[0]}" if blocked else f"a message was not confirmed within {_CONFIRM:.0f} s"
    return None


def _confirm(channel: Channel, confirmed: "asyncio.Future[Any]", reply: Any) -> None:
    channel.confirm_delivery(confirmed.set_result, callback=reply)
