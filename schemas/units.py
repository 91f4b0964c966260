"""Durations, rates and sizes, as people write them."""

import re
from typing import Final

_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_BYTES: Final = {"B": 1, "KiB": 1024, "MiB": 1024**2, "KB": 1000, "MB": 1000**2}
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d)", re.ASCII)
_RATE: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)/([smh])", re.ASCII)
_SIZE: Final = re.compile(r"(\d{1,12}) ?(B|KiB|MiB|KB|MB)", re.ASCII)


def seconds(value: object) -> float:
    """The seconds in `5s`, `1.5m`, `2h`, `1d` or a plain number. Raises `ValueError`."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9:
        return float(value)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a duration, as 30s, 5m or 2h, or a number of seconds")
    return float(match[1]) * _SECONDS[match[2]]


def per_second(value: object) -> float:
    """The number per second in `100/s`, `30/m` or `1/h`. Raises `ValueError`."""
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a rate, as 100/s, 30/m or 10/h")
    return float(match[1]) / _SECONDS[match[2]]


def size(value: object) -> int:
    """The bytes in `256KiB`, `1MiB` or a plain whole number. Raises `ValueError`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a size, as 256KiB or 1MiB, or a number of bytes")
    return int(match[1]) * _BYTES[match[2]]
