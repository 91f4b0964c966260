"""Keeps what comes for a tenant that moves to another cell, in order, in a queue of its own, until it is forwarded."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from workers.amqp.kept import keeping, kept, waves
from workers.amqp.publisher_thread import PublisherThread
from workers.ingest.judged import Judged

Keep = Callable[[Sequence[Judged]], None]

PATIENCE: Final = 10.0  # seconds to connect, and then for the confirms of one wave

_log = structlog.get_logger()


class NotKept(OSError):
    """The broker did not confirm a message that is to be kept: the same may succeed later."""


def nowhere(messages: Sequence[Judged]) -> None:
    """For who keeps nothing: the messages stay where they are."""
    raise NotKept(f"{len(messages)} messages are for tenants that move, and this process cannot keep them")


class Keeper:
    """Publishes to the tenants' queues, from the first message that is to be kept to `close`."""

    def __init__(self, amqp_url: str) -> None:
        self._amqp_url = amqp_url
        self._tenants: frozenset[str] = frozenset()
        self._publisher: PublisherThread | None = None

    def keep(self, messages: Sequence[Judged]) -> None:
        """Return when the broker has all messages durably; those of one subject are in their order. Raises `NotKept`.

        After that, keep all of them again: the other cell drops the duplicates.
        """
        publisher = self._connected(frozenset(judged.message.tenant for judged in messages))
        for wave in waves(messages, _lanes):
            asked = [kept(judged.message, _lanes(judged)) for judged in wave]
            if not all(publisher.publish_all(asked, PATIENCE)):
                raise NotKept("the broker did not confirm what is kept for tenants that move")
        for tenant, count in Counter(judged.message.tenant for judged in messages).items():
            _log.info("messages_kept", tenant=tenant, messages=count)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None

    def _connected(self, tenants: frozenset[str]) -> PublisherThread:
        if self._publisher is None or not tenants <= self._tenants:
            self.close()
            self._tenants |= tenants
            topology = [keeping(tenant) for tenant in sorted(self._tenants)]
            self._publisher = PublisherThread(self._amqp_url, "keeper", topology=topology)
        deadline = time.monotonic() + PATIENCE
        while (reason := self._publisher.ready()) is not None:
            if time.monotonic() > deadline:
                raise NotKept(f"what is kept for tenants that move cannot be published: {reason}")
            time.sleep(0.02)
        return self._publisher


def _lanes(judged: Judged) -> frozenset[bytes]:
    return frozenset(event.chain_key for event in judged.events or ())
