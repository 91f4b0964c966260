"""Publishes dead letters again, to the inbox, as they came."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from pika import BasicProperties, DeliveryMode

from ops.admin.replay import Publish
from ops.errors import OpsError
from ops.runtime import log as logs
from ops.settings import Settings, require
from schemas.message import FIRST_USER, Message
from workers.amqp import header_tables
from workers.amqp.confirm_window import Outgoing
from workers.amqp.publisher_thread import PublisherThread
from workers.amqp.topology import IN, RECEIVED

PATIENCE: Final = 10.0  # seconds for the broker to be there, and then for its confirms

#: Properties that a message had when it came and must not have again. A broker refuses the name of a user who we are not, and
#: throws away what has expired; and whatever it was, it is to be durable now.
_ONCE: Final = frozenset({"user_id", "expiration", "delivery_mode"})

#: What a quorum queue adds when it delivers again, which did not come with the message.
_BROKERS_OWN: Final = frozenset({"x-delivery-count", "x-acquired-count"})


@contextmanager
def inbox(settings: Settings) -> Iterator[Publish]:
    """What is given publishes and waits for the confirms; it connects when it is first used.

    It raises `OpsError` when the broker is away for ten seconds.
    """
    with ExitStack() as stack:
        opened: list[PublisherThread] = []

        def publish(messages: Sequence[Message]) -> list[bool]:
            if not opened:
                opened.append(_open(settings))
                stack.callback(opened[0].close)
            _wait_for(opened[0])
            return opened[0].publish_all([outgoing(message) for message in messages], PATIENCE)

        yield publish


def outgoing(message: Message) -> Outgoing:
    """The message on its way to the inbox, by the exchange that it came through: durable, from us, and without an end.

    One that was published under a user's name goes by the exchange that only we publish to, with that name in a header.
    """
    headers = {name: value for name, value in (message.headers or {}).items() if name not in _BROKERS_OWN}
    user = None if message.trusted else message.others.get("user_id")
    if user is not None:
        headers[FIRST_USER] = user
    others = {name: value for name, value in message.others.items() if name not in _ONCE}
    properties = BasicProperties(
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        headers=headers,
        message_id=message.message_id,
        type=message.type,
        timestamp=message.timestamp,
        delivery_mode=DeliveryMode.Persistent.value,
        **others,
    )
    return Outgoing(RECEIVED if message.trusted or user is not None else IN, message.routing_key, message.body, properties)


def _open(settings: Settings) -> PublisherThread:
    require(settings, "amqp_url")
    logs.configure(settings.log, "error", "replay")  # the connection's steps are nothing to the person who waits
    header_tables.install()
    return PublisherThread(settings.amqp_url, "replay")


def _wait_for(publisher: PublisherThread) -> None:
    deadline = time.monotonic() + PATIENCE
    while (reason := publisher.ready()) is not None:
        if time.monotonic() > deadline:
            raise OpsError(f"the broker does not take messages ({reason}): start it and run this again")
        time.sleep(0.05)
