"""Publishes with confirms, many at a time: a message counts as published when the broker has confirmed that it is durable.

`Unconfirmed` does not mean that the broker does not have it: the confirm may have been late, or lost with the connection.
A caller that publishes again uses the same id, and the ledger drops the duplicate.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

import structlog
from pika import BasicProperties
from pika.channel import Channel
from pika.exceptions import AMQPChannelError, AMQPConnectionError, AMQPError

from workers.amqp.confirm_window import Outgoing, Settle, Slot, Window
from workers.amqp.link import LOST, Link
from workers.amqp.session import Unsendable
from workers.amqp.topology import PROBE, PROBE_EXCHANGE, TOPOLOGY, Declaration
from workers.net.answer_deadline import USELESS
from workers.net.lease_deadline import Check, LeaseEnded, unleased

WINDOW: Final = 2000  # messages that await their confirm
WINDOW_BYTES: Final = 16 * 1024 * 1024  # of their bodies
BACKLOG: Final = 4000  # messages that wait for capacity in the window

_SWEEP: Final = 0.05  # seconds between two checks of the deadlines
_IDLE: Final = 1.0  # seconds without a message until the broker is probed
_SILENT: Final = 3.0  # seconds without a confirm, while one is pending, until the broker counts as away
_FIRST_PAUSE: Final = 0.2  # seconds between the first two channels that are opened because of refusals
_LONGEST_PAUSE: Final = 5.0
_REFUSES: Final = 5.0  # seconds of refusals alone, on several channels, until the broker is left
_CALM: Final = 30.0  # seconds without a refusal after which the next one counts as the first
_LATE: Final = "the broker did not confirm it in time"

WITHHELD: Final = "its lease had ended before it was published"
UNSENT: Final = "cannot be sent"  # the beginning of the reason when the message itself is at fault

_log = structlog.get_logger()

_PROBE: Final = Outgoing(PROBE, "", b"", BasicProperties(), mandatory=False)


class Unconfirmed(Exception):
    """The broker has not confirmed the message, but may have it all the same."""


class Publisher:
    """One connection, `window` messages in flight. Runs on the event loop that `start` was called on.

    Reconnects by itself, and declares `topology` each time. Messages in flight on a connection that ended fail;
    nothing is sent twice. While the connection is down or blocked by an alarm, messages fail at once. When the broker refuses
    a message, later ones go on another channel (see `Renewal`). A broker that takes nothing is left for the next one.
    """

    def __init__(
        self,
        amqp_url: str,
        name: str,
        *,
        topology: Sequence[Declaration] = TOPOLOGY,
        timeout: float = 5.0,
        window: int = WINDOW,
        backlog: int = BACKLOG,
        useless: float = USELESS,
    ) -> None:
        """`timeout` in seconds, from `publish` to the confirm; `name` is shown in the broker's list of connections.

        `useless`: seconds for which a broker may confirm nothing while it has messages to confirm.
        """
        self._link = Link(amqp_url, (*topology, PROBE_EXCHANGE), self, name)
        self._window = Window(window, WINDOW_BYTES, backlog)
        self._timeout = timeout
        self._useless, self._refuses = max(useless, timeout), min(useless, _REFUSES)
        self._channel: Channel | None = None
        self._next: Channel | None = None  # to go over to when nothing is in flight; until then nothing is sent
        self._renewal = Renewal()
        self._heard = 0.0  # when the broker last confirmed, or the first message was sent after all had been confirmed
        self._next_by = 0.0
        self._loop: asyncio.AbstractEventLoop
        self._sweeper: asyncio.TimerHandle | None = None
        self._prober: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to connect, on the running event loop. Does not wait."""
        self._loop = asyncio.get_running_loop()
        self._link.start()
        self._probe()

    async def close(self) -> None:
        """Fail the messages in flight and close the connection."""
        for timer in (self._prober, self._sweeper):
            if timer is not None:
                timer.cancel()
        await self._link.close()

    def ready(self) -> str | None:
        """Give None when messages can be published, as far as is known, else a short reason. Safe from any thread."""
        if self._link.reason is None and len(self._window):
            silence = self._loop.time() - self._heard
            if silence > _SILENT:
                return f"the broker has not confirmed anything for {silence:.0f} s"
        return self._link.reason

    def want(self) -> None:
        """Have a lost connection retried soon, because a caller waits for it."""
        self._link.want()

    def trouble(self) -> str | None:
        """Give a short reason while publishing is impossible or part of the topology is missing. Safe from any thread."""
        return self.ready() or self._link.missing

    @property
    def ending(self) -> str | None:
        """The reason that was given when the last connection, or its channel, ended."""
        return self._link.ending

    async def exists(self, exchange: str) -> bool:
        """Ask the broker whether the exchange exists: publishing to a missing one fails all messages in flight.

        Raises `Lost`.
        """
        return await self._link.exists(exchange)

    def publish(self, exchange: str, routing_key: str, body: bytes, properties: BasicProperties) -> asyncio.Future[None]:
        """Publish; the future ends when the message is durable, or raises `Unconfirmed` within `timeout`."""
        return self.post(Outgoing(exchange, routing_key, body, properties))

    def post(self, message: Outgoing) -> asyncio.Future[None]:
        """Publish `message`, as `publish` does."""
        future: asyncio.Future[None] = self._loop.create_future()
        self.send(message, self.deadline(), partial(_resolve, future))
        return future

    def deadline(self) -> float:
        """The confirm deadline of a message published now, on the event loop's clock."""
        return self._loop.time() + self._timeout

    def send(self, message: Outgoing, deadline: float, settle: Settle, check: Check = unleased) -> None:
        """Publish and call `settle` by `deadline`: with None when the message is durable, else with the reason.

        Calls `check` just before the message is sent; if it raises `LeaseEnded`, the message is `WITHHELD`.
        """
        slot = Slot(message, deadline, settle, check)
        if self._link.reason is not None:
            slot.settle(self._link.reason)
        elif self._channel is not None and self._next is None and self._window.takes(slot):
            self._write(slot, self._channel)
            self._watch()
        elif not self._window.enter(slot):
            slot.settle("too many messages wait for the broker")
        else:
            self._pump()
            self._watch()

    # Callbacks of the link.

    def on_up(self, channel: Channel) -> None:
        """Publish on `channel` from now on."""
        self._channel = channel
        self._heard = self._loop.time()
        self._renewal.since = None

    def on_renewed(self, channel: Channel) -> None:
        """Publish on `channel` when the broker has confirmed what is in flight, or its time is over."""
        self._next = channel
        self._next_by = self._loop.time() + self._timeout
        self._pump()
        self._watch()

    def on_down(self, reason: str) -> None:
        """Fail all messages in flight."""
        self._channel = self._next = None
        self._window.fail(reason)

    def on_confirm(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """Settle the confirmed messages, and send queued ones in their place."""
        self._heard = self._loop.time()
        if taken:
            self._renewal.since = None
        else:
            self._refused(self._heard)
        self._window.confirm(tag, multiple=multiple, taken=taken)
        self._pump()

    def on_return(self, exchange: str, routing_key: str) -> None:
        """Remember that the broker has no queue for these."""
        self._window.returned(exchange, routing_key)

    def _refused(self, now: float) -> None:
        due = self._next is None and self._renewal.due(now)
        if self._renewal.since is not None and now - self._renewal.since > self._refuses:
            self._link.leave(f"the broker has refused everything for {now - self._renewal.since:.0f} s")
        elif due:
            _log.warning("broker_refuses", channel=None if self._channel is None else self._channel.channel_number)
            self._link.renew()

    def _pump(self) -> None:
        if self._next is not None and not self._go_over(self._next):
            return
        if self._link.reason is None and self._channel is not None:
            for slot in self._window.admitted():
                self._write(slot, self._channel)

    def _go_over(self, channel: Channel) -> bool:
        """Publish on `channel` from now on, if nothing is in flight that the broker may still confirm in time."""
        if len(self._window) and self._loop.time() < self._next_by:
            return False
        self._channel, self._next = channel, None
        self._window.restart(_LATE)
        self._link.use(channel)
        return True

    def _write(self, slot: Slot, channel: Channel) -> None:
        message = slot.message
        if not len(self._window):
            self._heard = self._loop.time()
        try:
            slot.check()
            channel.connection.publish(channel, message)
        except LeaseEnded:
            slot.settle(WITHHELD)
        except (AMQPChannelError, AMQPConnectionError):  # it has closed, and the link will hear of it
            slot.settle(LOST)
        except (AMQPError, Unsendable, ValueError, TypeError) as error:  # pika raises these before it sends anything
            slot.settle(f"{UNSENT}: {error!r:.200}")
        else:
            self._window.sent(slot)

    def _watch(self) -> None:
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_SWEEP, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now = self._loop.time()
        self._window.expire(now, _LATE)
        self._pump()
        if self._link.reason is not None:  # an alarm ends when it ends, and no other broker of the cluster is without it
            self._heard = now
        elif len(self._window) and now - self._heard > self._useless:
            self._link.leave(f"the broker has not confirmed anything for {now - self._heard:.0f} s")
        if not self._window.idle:
            self._watch()

    def _probe(self) -> None:
        """When idle, publish a message that goes nowhere: the broker announces an alarm only to connections that publish."""
        self._prober = self._loop.call_later(_IDLE, self._probe)
        now = self._loop.time()
        if self._channel is not None and self._window.idle and now - self._heard >= _IDLE and not self._renewal.lasts(now):
            self.send(_PROBE, self._loop.time() + self._timeout, _ignore)


class Renewal:
    """Decides at each refusal whether to open another channel: at the first, and then after pauses that double.

    RabbitMQ before 3.12.5 asks the leader of a quorum queue at the first message of each channel. If that leader's node has
    just died, the channel takes no message until the node is back, though another member of the queue has led it for long. A
    channel that is opened later takes them. A refusal may be the channel's; where it is not, another costs little.
    """

    def __init__(self) -> None:
        self.since: float | None = None  # the first refusal since the broker last took a message
        self._refused = self._next = float("-inf")
        self._pause = _FIRST_PAUSE

    def due(self, now: float) -> bool:
        """Note a refusal; whether to open another channel now."""
        if now - self._refused > _CALM:
            self._pause, self._next, self.since = _FIRST_PAUSE, now, None
        self.since = now if self.since is None else self.since
        self._refused = now
        if now < self._next:
            return False
        self._next = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return True

    def lasts(self, now: float) -> bool:
        """Whether the last message was refused, not long ago. A probe, which goes nowhere, would be taken all the same."""
        return self.since is not None and now - self._refused <= _CALM


def _resolve(future: asyncio.Future[None], fault: str | None) -> None:
    if future.done():  # the caller was cancelled
        return
    if fault is None:
        future.set_result(None)
    else:
        future.set_exception(Unconfirmed(fault))


def _ignore(_fault: str | None) -> None:
    """A probe's result is not needed."""
