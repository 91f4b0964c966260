"""Anomalies found in a mail while it is read, and the time left for reading it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Final

from schemas.mail_document import Flag, MailDocument

SECONDS: Final = 10.0  # for reading one mail
MAX_NOTES: Final = 50
MAX_NOTE: Final = 200  # characters


class OutOfTime(Exception):
    """The time for reading this mail is over."""


class Findings:
    """Flags, notes and deadline of one mail. The deadline is by `clock`, in seconds, and is checked between two parts."""

    def __init__(self, clock: Callable[[], float] = lambda: 0.0, seconds: float = 1.0) -> None:
        self._clock = clock
        self._until = clock() + seconds
        self._flags: set[Flag] = set()
        self._notes: dict[str, None] = {}

    def flag(self, flag: Flag, detail: str = "") -> None:
        """Record an anomaly; `detail` is for people."""
        self._flags.add(flag)
        if detail and len(self._notes) < MAX_NOTES:
            text = detail.encode("ascii", "backslashreplace").decode().replace("\0", "\\0")
            self._notes[f"{flag}: {text}"[:MAX_NOTE]] = None

    def check_time(self) -> None:
        """Raises `OutOfTime` once the time is over."""
        if self._clock() > self._until:
            raise OutOfTime

    @contextmanager
    def flagging_errors(self, flag: Flag, what: str = "") -> Iterator[None]:
        """Any exception of the block becomes a flag; the rest of the block is skipped."""
        try:
            yield
        except OutOfTime:
            self.flag("out_of_time", what)
        except Exception as error:  # noqa: BLE001 - a mail may break any parser in any way
            self.flag(flag, f"{what} {type(error).__name__}: {error}".strip())

    @property
    def flags(self) -> tuple[Flag, ...]:
        """All flags, sorted."""
        return tuple(sorted(self._flags))

    @property
    def notes(self) -> tuple[str, ...]:
        """All notes, in the order in which they were made."""
        return tuple(self._notes)


def unparsed(raw: bytes, why: str, *flags: Flag) -> MailDocument:
    """The document of a mail that could not be parsed at all."""
    findings = Findings()
    findings.flag("unparsed", why)
    for each in flags:
        findings.flag(each)
    return MailDocument(len(raw), sha256(raw).hexdigest(), flags=findings.flags, notes=findings.notes)
