"""How far a try got, and when: the times of its phases, as far as there were any."""

import ssl
from contextvars import ContextVar
from time import monotonic
from typing import NamedTuple


class Phases(NamedTuple):
    """Seconds of each phase; None where there was no such phase. One that did not end lasted to the end of the try."""

    dns: float | None
    connect: float | None
    tls: float | None
    first_byte: float | None


class Course:
    """Times of the monotonic clock (a loop's goes in milliseconds), each None until it is reached."""

    __slots__ = ("address", "answered", "began", "dialled", "ready", "secured", "with_proxy")

    def __init__(self, began: float) -> None:
        self.began = began
        self.address: str | None = None
        self.dialled: float | None = None  # the first address was called
        self.secured: float | None = None  # TLS began
        self.ready: float | None = None  # for the request to be sent
        self.answered: float | None = None  # the answer began
        self.with_proxy = False  # what goes on is between us and the proxy alone

    def reach(self, address: str, at: float) -> None:
        """A connection is there."""
        self.address, self.ready = address or self.address, at

    def forget(self) -> None:
        """The connection was none: another one is made."""
        self.address = self.ready = None

    @property
    def reused(self) -> bool | None:
        """Whether a kept-alive connection served; None when there was none to send the request on."""
        return None if self.ready is None else self.dialled is None

    def phases(self, ended: float, *, named: bool) -> Phases:
        """The phases of a try that ended at `ended`; `named` says that its host had to be looked up."""
        first_byte = _between(self.ready, self.answered, ended)
        if self.reused:
            return Phases(None, None, None, first_byte)
        return Phases(
            _between(self.began, self.dialled, ended) if named else None,
            _between(self.dialled, self.secured or self.ready, ended),
            _between(self.secured, self.ready, ended),
            first_byte,
        )


#: The try that the running task makes. What a connection is made by runs in tasks and callbacks of its own, which inherit it.
COURSE: ContextVar[Course | None] = ContextVar("course", default=None)


class TimedTls(ssl.SSLObject):
    """Notes when the handshake of the running try begins."""

    def do_handshake(self) -> None:
        """Shake hands; called again and again until it is done."""
        course = COURSE.get()
        if course is not None and course.secured is None:
            course.secured = monotonic()
        super().do_handshake()


def _between(start: float | None, end: float | None, otherwise: float) -> float | None:
    return None if start is None else max(0.0, (end or otherwise) - start)
