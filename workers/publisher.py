"""Publishes with confirms, many at a time: a message counts as sent when the broker has said that it is durable.

Unconfirmed does not mean that the broker does not have it: a confirm may have come too late, or got lost with the connection.
Whoever publishes again publishes the same id, and the ledger drops the second.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from pika import BasicProperties
from pika.channel import Channel
from pika.exceptions import AMQPError

from workers.link import Link
from workers.topology import PROBE, TOPOLOGY, Declaration

WINDOW: Final = 2000  # messages that wait for their confirm
WINDOW_BYTES: Final = 16 * 1024 * 1024  # of their bodies
_SWEEP: Final = 0.05  # seconds between two looks at the deadlines
_IDLE: Final = 1.0  # seconds without a confirm until the broker is probed
_SILENT: Final = 3.0  # seconds without a confirm, while some are due, until the broker counts as away

_log = structlog.get_logger()

#: Told what became of a message: None when it is durable, else why that is not known. Called once, must not raise.
Settle = Callable[[str | None], None]


class Unconfirmed(Exception):
    """The broker has not confirmed the message; it may or may not have it."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish."""

    exchange: str
    routing_key: str
    body: bytes
    properties: BasicProperties


class _Slot:
    """A message in the publisher's hands. Its place in the window is free when the broker has spoken, not when `settle` was
    called: what is late still fills the broker's socket."""

    __slots__ = ("deadline", "message", "settle")

    def __init__(self, message: Outgoing, deadline: float, settle: Settle | None) -> None:
        self.message = message
        self.deadline = deadline
        self.settle = settle

    def done(self, fault: str | None) -> None:
        if self.settle is not None:
            settle, self.settle = self.settle, None
            settle(fault)
