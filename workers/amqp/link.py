"""A connection to the broker that reconnects by itself, with one channel in confirm mode."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol

import pika
import structlog
from pika.channel import Channel
from pika.exceptions import AMQPError
from pika.spec import Basic

from ops.telemetry import table
from ops.telemetry.metrics import show_alarm
from workers.amqp.brokers import Brokers
from workers.amqp.session import Lost, Refused, Session
from workers.amqp.topology import INBOX_QUEUE, QUEUES, Declaration
from workers.amqp.topology_watch import TopologyWatch, declare

_SETUP_SECONDS: Final = 10.0  # from the first packet to the last declaration
_HEARTBEAT: Final = 5  # seconds; a broker that is silent for 10 to 20 s counts as lost
_FIRST_WAIT: Final = 0.2
_LONGEST_WAIT: Final = 2.0
_WANTED_WAIT: Final = 0.5  # while a delivery waits: much less than it waits at most (`workers.transports.amqp.READY_SECONDS`)

LOST: Final = "the connection to the broker was lost"
AWAY: Final = "not connected"

_log = structlog.get_logger()


class LinkOwner(Protocol):
    """The publisher that uses a link, and the callbacks that the link calls on it, always on the event loop."""

    def on_up(self, channel: Channel) -> None:
        """The channel is open for publishing; its first message has the delivery tag 1."""

    def on_renewed(self, channel: Channel) -> None:
        """Another channel is open, as `Link.renew` was told. `Link.use` goes over to it, when nothing is in flight."""

    def on_down(self, reason: str) -> None:
        """The channel is gone: messages that it has not confirmed never will be."""

    def on_confirm(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """The broker confirmed or refused message `tag`; with `multiple`, all up to it. `taken`: they are durable."""

    def on_return(self, exchange: str, routing_key: str) -> None:
        """A message could not be routed; its confirm comes later and does not say so."""


class Link:
    """Connects, declares the topology, notifies its `owner`, and reconnects when connection or channel end, until `close`.

    Each attempt leads to the next broker of the URLs.

    `reason` says why nothing can be published at the moment: not connected, or the broker is in alarm; None if it can be.
    Pauses between attempts grow from 0.2 s to 2 s, with jitter; after `want` the next one takes 0.5 s at most.
    """

    def __init__(self, amqp_url: str, topology: Sequence[Declaration], owner: LinkOwner, name: str) -> None:
        self._brokers = Brokers(amqp_url)
        self._name = name
        self._topology = topology
        self._watch = TopologyWatch(topology)
        self._owner = owner
        self._keeper: asyncio.Task[None] | None = None
        self._live: Session | None = None
        self._used: Channel | None = None  # the one whose confirms count
        self._left: set[Channel] = set()  # those before it, until they are closed
        self._renewing: asyncio.Task[None] | None = None
        self._ups = 0
        self._wanted = asyncio.Event()
        self.reason: str | None = AWAY
        self.ending: str | None = None  # the reason that the broker or the network gave when the last connection ended

    def start(self) -> None:
        """Begin to connect, on the running event loop. Does not wait."""
        for chatty in ("pika.adapters", "pika.connection", "pika.channel"):
            logging.getLogger(chatty).setLevel(logging.CRITICAL)  # pika logs seven errors for each attempt; we log one
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        """Close the connection and do not reconnect."""
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper

    def want(self) -> None:
        """Reconnect sooner, because a caller waits for the link. Holds for one attempt."""
        self._wanted.set()

    def renew(self) -> None:
        """Open another channel on the same connection, and give it to `on_renewed`; nothing if that is under way."""
        if self._live is not None and (self._renewing is None or self._renewing.done()):
            self._renewing = asyncio.get_running_loop().create_task(self._renew(self._live))

    def leave(self, reason: str) -> None:
        """Give the connection up, and connect to the next broker."""
        if self._live is not None:
            self._live.end(reason)

    def use(self, channel: Channel) -> None:
        """Count only the confirms of `channel` from now on, and close the one before."""
        before, self._used = self._used, channel
        if before is not None and before.is_open:
            self._left.add(before)
            before.close()

    async def exists(self, exchange: str) -> bool:
        """Ask the broker whether the exchange exists. Raises `Lost`."""
        if self._live is None:
            raise Lost(AWAY)
        found = await self._live.exists(exchange)
        if not found:
            self._watch.not_found(exchange)
        return found

    @property
    def missing(self) -> str | None:
        """The part of the topology that is missing at the moment, if any; other messages may still be published."""
        return self._watch.trouble

    async def _keep(self) -> None:
        wait = _FIRST_WAIT
        while True:
            ups = self._ups
            try:
                reason = await self._session()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next attempt may succeed
                reason = repr(error)
            wait = _FIRST_WAIT if self._ups > ups else min(2 * wait, _LONGEST_WAIT)
            pause = wait * random.uniform(0.5, 1.0)  # noqa: S311 - spreads reconnects, guards nothing
            _log.warning("broker_lost", reason=reason, again_in=round(pause, 2))
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, _WANTED_WAIT))
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds - _WANTED_WAIT)):
                await self._wanted.wait()
        self._wanted.clear()

    async def _session(self) -> str:
        """Run one connection from its opening to its end; give the reason of the end."""
        session = Session(_tuned(self._brokers.next(), self._name))
        session.connection.add_on_connection_blocked_callback(partial(self._blocked, session))
        session.connection.add_on_connection_unblocked_callback(partial(self._unblocked, session))
        try:
            async with asyncio.timeout(_SETUP_SECONDS):
                channel = await self._open(session)
            self._up(session, channel)
            return await self._watched(session)
        except TimeoutError:
            return f"not set up within {_SETUP_SECONDS:g} s"
        except (Lost, Refused) as error:
            return str(error)
        finally:
            self._down(session)
            await session.close()

    async def _watched(self, session: Session) -> str:
        """Watch the topology until the session ends, and give the reason."""
        watching = asyncio.create_task(self._watch.run(session))
        try:
            await session.settled(watching)
            return repr(watching.exception())
        finally:
            watching.cancel()

    async def _open(self, session: Session) -> Channel:
        await session.opened()
        channel = await self._channel(session)
        await self._declare(session)
        return channel

    async def _renew(self, session: Session) -> None:
        with suppress(Lost, AMQPError):
            channel = await self._channel(session)
            if self._live is session:
                self._owner.on_renewed(channel)

    async def _channel(self, session: Session) -> Channel:
        """Open a channel in confirm mode."""
        channel = await session.channel()
        channel.add_on_close_callback(partial(self._closed, session))
        channel.add_on_return_callback(partial(self._returned, session))
        await session.reply(partial(_confirm, channel, partial(self._confirmed, session, channel)))
        return channel

    async def _declare(self, session: Session) -> None:
        """Declare the topology. If only the inbox is missing, publish already (`waxseal.unrouted` keeps the messages)."""
        without_inbox = [each for each in self._topology if each is not INBOX_QUEUE]
        if await session.missing(without_inbox) is None and await session.missing([INBOX_QUEUE]) is not None:
            self._watch.check_soon()
        else:
            await declare(session, self._topology, settle=await session.missing(QUEUES) is not None)

    def _up(self, session: Session, channel: Channel) -> None:
        self._live, self._used = session, channel
        self.reason = session.blocked
        show_alarm(session.blocked)
        self._ups += 1
        if self._ups > 1:
            table.BROKER_RECONNECTS.labels("publisher").inc()
        _log.info("broker_connected", times=self._ups)
        self._owner.on_up(channel)

    def _down(self, session: Session) -> None:
        if self._live is session:
            self._live = None
            self.reason = AWAY
            show_alarm(None)
            said = session.ended.done() and not session.ended.cancelled()  # our own `close` cancels it
            self.ending = session.ended.result() if said else None
            self._owner.on_down(LOST)

    # Ignore callbacks of a session or a channel that is not used any more: its delivery tags mean nothing on another channel.

    def _closed(self, session: Session, channel: Channel, error: object) -> None:
        if channel in self._left:
            self._left.remove(channel)
        else:
            session.end(error)

    def _confirmed(self, session: Session, channel: Channel, frame: Any) -> None:
        if self._live is session and self._used is channel:
            method = frame.method
            self._owner.on_confirm(method.delivery_tag, multiple=method.multiple, taken=isinstance(method, Basic.Ack))

    def _returned(self, session: Session, channel: Channel, method: Any, _properties: Any, _body: bytes) -> None:
        if self._live is session and self._used is channel:
            self._owner.on_return(method.exchange, method.routing_key)
            self._watch.returned(method.exchange, method.routing_key)

    def _blocked(self, session: Session, _connection: Any, frame: Any) -> None:
        session.blocked = f"the broker is in alarm: {frame.method.reason}"
        if self._live is session:
            self.reason = session.blocked
            show_alarm(frame.method.reason)
            _log.warning("broker_blocked", reason=frame.method.reason)

    def _unblocked(self, session: Session, _connection: Any, _frame: Any) -> None:
        session.blocked = None
        if self._live is session:
            self.reason = None
            show_alarm(None)
            _log.info("broker_unblocked")


def _confirm(channel: Channel, confirmed: Callable[[Any], None], reply: Callable[[Any], None]) -> None:
    channel.confirm_delivery(confirmed, callback=reply)


def _tuned(parameters: pika.URLParameters, name: str) -> pika.URLParameters:
    parameters.heartbeat = parameters.heartbeat or _HEARTBEAT
    parameters.socket_timeout, parameters.stack_timeout = 5, 8
    # Keep a blocked connection: the broker announces the end of the alarm only on it.
    parameters.blocked_connection_timeout = None
    parameters.client_properties = {"connection_name": f"waxseal {name}"}
    return parameters
