"""A steady stream of events through the system, and how long each took from its first sending to the endpoint."""

import itertools
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from support.outages.senders import Arrivals, Event, publish_events, send_webhooks

CHANNELS: Final = ("http", "http", "amqp", "amqp")
PAUSE: Final = 0.1  # seconds between two events of a sender
NORMAL: Final = 2.0  # seconds from the first sending to the endpoint
ENOUGH: Final = 10  # events of a sender in a row that took no longer, after which its flow is whole
PATIENCE: Final = 5.0  # seconds that an upstream system waits for a confirm


@dataclass
class Whole:
    """Seconds after a moment until the flow was whole; and the longest that an event took to be accepted and delivered."""

    after: float
    accepted: float
    delivered: float


class Flow:
    """Senders that send from `start` to `stop`, one event after the other, each until it is accepted."""

    def __init__(
        self, ingress_url: str, amqp_urls: str, arrivals: Arrivals, post: Callable[[str, str], str] | None = None
    ) -> None:
        """`post` puts a mail with a text and a subject into a mailbox, and gives the event's id; without it there are none."""
        self._post = post
        self._ingress_url = ingress_url
        self._amqp_urls = amqp_urls.split(",")
        self._arrivals = arrivals
        self._stop = threading.Event()
        self._over = False
        self._channels = (*CHANNELS, "mail") if post else CHANNELS
        self.sent: list[list[Event]] = [[] for _ in self._channels]
        self.times: list[list[float]] = [[] for _ in self._channels]  # monotonic, of the first sending
        self.accepted: dict[str, float] = {}
        self._pool = ThreadPoolExecutor(len(self._channels))
        self._senders: list[Future[None]] = []

    def start(self) -> None:
        by = {"http": self._webhooks, "amqp": self._events, "mail": self._mails}
        for channel, kind in enumerate(self._channels):
            self._senders.append(self._pool.submit(by[kind], channel))
        logging.getLogger("pika").setLevel(logging.CRITICAL)  # it logs ten lines for each connection that fails

    def end(self) -> None:
        """Has the senders give up what is not accepted, when they try it again."""
        self._stop.set()
        self._over = True

    def stop(self) -> None:
        """Returns when all that was sent was accepted."""
        self._stop.set()
        for each in self._senders:
            each.result(240)

    def _webhooks(self, channel: int) -> None:
        send_webhooks(lambda: self._unless_over(self._ingress_url), self._stream(channel), self._accept)

    def _events(self, channel: int) -> None:
        urls = itertools.cycle(random.sample(self._amqp_urls, len(self._amqp_urls)))
        publish_events(lambda: self._unless_over(next(urls)), self._stream(channel), self._accept, PATIENCE)

    def _mails(self, channel: int) -> None:
        for number in itertools.count():
            if self._stop.wait(PAUSE):
                return
            assert self._post is not None
            subject = f"subject-{channel}-{number % 5}"
            at = time.monotonic()
            id = self._post(f"{channel}-{number}", subject)
            self.times[channel].append(at)
            self.sent[channel].append((id, subject))
            self._accept(id)

    def _unless_over(self, url: str) -> str:
        if self._over:
            raise RuntimeError("it was given up")
        return url

    def _accept(self, id: str) -> None:
        self.accepted.setdefault(id, time.monotonic())

    def _stream(self, channel: int) -> Iterator[Event]:
        """Every tenth event is sent twice."""
        for number in itertools.count():
            if self._stop.wait(PAUSE):
                return
            event = (f"{channel}-{number}", f"subject-{channel}-{number % 5}")
            self.sent[channel].append(event)
            self.times[channel].append(time.monotonic())
            yield event
            if number % 10 == 0:
                yield event

    def whole(self, since: float) -> Whole | None:
        """Whether all senders' events pass in the usual time again; if so, since when, after the moment `since`.

        Raises what a sender raised.
        """
        for sender in self._senders:
            if sender.done():
                sender.result()
        each = [self._whole(channel, since) for channel in range(len(self._channels))]
        if any(one is None for one in each):
            return None
        found = [one for one in each if one is not None]
        return Whole(*(max(getattr(one, name) for one in found) for name in ("after", "accepted", "delivered")))

    def _whole(self, channel: int, since: float) -> Whole | None:
        now = time.monotonic()
        known = zip(self.sent[channel], self.times[channel], strict=False)  # the sender goes on meanwhile
        ids = [(id, at) for (id, _subject), at in known if at >= since - NORMAL]
        took = [self._arrivals.first.get(id, now) - at for id, at in ids]
        late = max((number for number, seconds in enumerate(took) if seconds > NORMAL), default=-1)
        then = [id for id, _at in ids[late + 1 :] if id in self._arrivals.first]
        if len(then) < ENOUGH:
            return None
        edge = [id for id, _at in ids[max(late, 0) : late + 1] if id in self._arrivals.first]
        ends = [self._arrivals.first[id] for id in (*edge, then[0])]
        accepted = [self.accepted.get(id, now) - at for id, at in ids]
        return Whole(max(0.0, min(ends) - since) if late >= 0 else 0.0, max(accepted), max(took))

    def all_arrived(self) -> bool:
        return all(id in self._arrivals.first for events in self.sent for id, _subject in events)
