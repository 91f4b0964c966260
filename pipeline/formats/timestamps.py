"""Converts times in the forms that senders use to RFC 3339."""

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

from pipeline.errors import Rejected
from pipeline.formats.cloudevents import instant

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNIX: Final = re.compile(r"(\d{1,16})(?:\.(\d{1,9}))?", re.ASCII)
_LONGEST: Final = 64  # characters


def moment(value: Any) -> str | None:
    """RFC 3339 for an RFC 3339 time, a Unix time or an RFC 5322 date; None for anything else. Never raises.

    Unix time is in seconds; with 12 to 14 digits in milliseconds; with more in microseconds.
    """
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return None
    text = str(value).strip()
    if len(text) > _LONGEST:
        return None
    for read in _FORMS:
        with suppress(Rejected, ValueError, TypeError, IndexError, OverflowError):
            return read(text)
    return None


def _rfc3339(text: str) -> str:
    instant(text)
    return text


def _unix(text: str) -> str:
    match = _UNIX.fullmatch(text)
    if match is None:
        raise ValueError("not digits")
    digits = len(match[1])
    unit = timedelta(seconds=1) if digits < 12 else timedelta(milliseconds=1) if digits < 15 else timedelta(microseconds=1)
    fraction = timedelta(microseconds=int((match[2] or "").ljust(6, "0")[:6])) if digits < 12 else timedelta()
    return _written(_EPOCH + int(match[1]) * unit + fraction)


def _rfc5322(text: str) -> str:
    found = parsedate_to_datetime(text)
    return _written(found if found.tzinfo else found.replace(tzinfo=UTC))


def _written(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


_FORMS: Final[tuple[Callable[[str], str], ...]] = (_rfc3339, _unix, _rfc5322)


def retry_after(value: str | None, now: datetime) -> float | None:
    """The seconds that a `Retry-After` header asks for (RFC 9110 §10.2.3): a number, or a date relative to `now`.

    None when it is missing or invalid; never negative.
    """
    value = (value or "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())
