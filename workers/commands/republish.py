"""Publishes dead letters again to the inbox, as they were received."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from ops.admin.replay import Publish
from ops.errors import OpsError
from ops.runtime import log as logs
from ops.settings import Settings, require
from ops.telemetry.tracing import switch as tracing
from ops.telemetry.tracing.publishing_spans import replayed, replaying
from ops.telemetry.tracing.switch import active
from schemas.message import Message
from workers.amqp import header_tables
from workers.amqp.kept import outgoing
from workers.amqp.publisher_thread import PublisherThread

PATIENCE: Final = 10.0  # seconds to connect to the broker, and then for its confirms


@contextmanager
def inbox(settings: Settings, *, in_process: bool = False) -> Iterator[Publish]:
    """Give a function that publishes and waits for the confirms; it connects when it is first called.

    The function raises `OpsError` when the broker is away for ten seconds. `in_process`: logs and traces are those of the
    process that it runs in, not of a command.
    """
    with ExitStack() as stack:
        opened: list[PublisherThread] = []

        def publish(messages: Sequence[Message]) -> list[bool]:
            if not opened:
                opened.append(_open(settings, in_process=in_process))
                if not in_process:
                    stack.callback(tracing.stop)
                stack.callback(opened[0].close)
            _wait_for(opened[0])
            spans = active()
            hops = [None if spans is None else replaying(spans, message) for message in messages]
            asked = [outgoing(*each) for each in zip(messages, hops, strict=True)]
            began = time.monotonic()
            done = opened[0].publish_all(asked, PATIENCE)
            for message, hop, confirmed in zip(messages, hops, done, strict=True):
                if spans is not None and hop is not None:
                    replayed(spans, message, hop, time.monotonic() - began, None if confirmed else "unconfirmed")
            return done

        yield publish


def _open(settings: Settings, *, in_process: bool) -> PublisherThread:
    require(settings, "amqp_url")
    if not in_process:
        logs.configure(settings.log, "error", "replay")  # the operator need not see the connection's steps
        tracing.start("replay")
    header_tables.install()
    return PublisherThread(settings.amqp_url, "replay")


def _wait_for(publisher: PublisherThread) -> None:
    deadline = time.monotonic() + PATIENCE
    while (reason := publisher.ready()) is not None:
        if time.monotonic() > deadline:
            raise OpsError(f"the broker does not take messages ({reason}): start it and run this again")
        time.sleep(0.05)
