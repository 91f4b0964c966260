"""The progress of an attempt to send, and the times of its phases."""

import ssl
from contextvars import ContextVar
from time import monotonic
from typing import NamedTuple


class Phases(NamedTuple):
    """Seconds of each phase; None for a phase that did not begin. One that did not end lasts to the end of the attempt."""

    dns: float | None
    connect: float | None
    tls: float | None
    first_byte: float | None


class AttemptTimes:
    """Times on the monotonic clock (the event loop's has only milliseconds), each None until it is reached."""

    __slots__ = ("address", "answered", "began", "dialled", "ready", "secured", "with_proxy")

    def __init__(self, began: float) -> None:
        self.began = began
        self.address: str | None = None
        self.dialled: float | None = None  # when the connect to the first address began
        self.secured: float | None = None  # when the TLS handshake began
        self.ready: float | None = None  # when the request could be sent
        self.answered: float | None = None  # when the answer began
        self.with_proxy = False  # whether the current phase involves only us and the proxy

    def reach(self, address: str, at: float) -> None:
        """Note that a connection is ready for the request."""
        self.address, self.ready = address or self.address, at

    def forget(self) -> None:
        """The connection was unusable; clear its times before the next one is made."""
        self.address = self.ready = None

    @property
    def reused(self) -> bool | None:
        """Whether a kept-alive connection was used; None when no connection was ready."""
        return None if self.ready is None else self.dialled is None

    def phases(self, ended: float, *, named: bool) -> Phases:
        """The phases of an attempt that ended at `ended`; `named`: whether its host had to be looked up."""
        first_byte = _between(self.ready, self.answered, ended)
        if self.reused:
            return Phases(None, None, None, first_byte)
        return Phases(
            _between(self.began, self.dialled, ended) if named else None,
            _between(self.dialled, self.secured or self.ready, ended),
            _between(self.secured, self.ready, ended),
            first_byte,
        )


#: The attempt of the running task. The tasks and callbacks that make its connection inherit the variable.
ATTEMPT_TIMES: ContextVar[AttemptTimes | None] = ContextVar("attempt_times", default=None)


class TimedTls(ssl.SSLObject):
    """Notes when the handshake of the running attempt begins."""

    def do_handshake(self) -> None:
        """Continue the handshake; called repeatedly until it is done."""
        times = ATTEMPT_TIMES.get()
        if times is not None and times.secured is None:
            times.secured = monotonic()
        super().do_handshake()


def _between(start: float | None, end: float | None, otherwise: float) -> float | None:
    return None if start is None else max(0.0, (end or otherwise) - start)
