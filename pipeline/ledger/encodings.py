"""The one right spelling of base64 and of decimal numbers: other texts with the same meaning would be unnoticed alterations."""

import base64
import binascii
import re
from typing import Any, Final

from pipeline.errors import Unreadable
from pipeline.ledger.merkle import HASH_BYTES, LARGEST

_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}")


def to_base64(raw: bytes) -> str:
    """The bytes in the standard alphabet of RFC 4648, with padding."""
    return base64.b64encode(raw).decode()


def from_base64(text: Any, name: str) -> bytes:
    """The bytes of canonical base64. Raises `Unreadable`, with `name` in its message."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise Unreadable(f"{name} is not base64") from None
    if to_base64(raw) != text:
        raise Unreadable(f"{name} is not base64 in its canonical form")
    return raw


def hash_from_base64(text: Any, name: str) -> bytes:
    """The hash in canonical base64. Raises `Unreadable`, with `name` in its message."""
    raw = from_base64(text, name)
    if len(raw) != HASH_BYTES:
        raise Unreadable(f"{name} is not a hash of {HASH_BYTES} bytes")
    return raw


def read_decimal(text: str, name: str) -> int:
    """A number of leaves or an index, without leading zeros. Raises `Unreadable`, with `name` in its message."""
    if not _DECIMAL.fullmatch(text) or int(text) > LARGEST:
        raise Unreadable(f"{name} is not a number in its canonical form: {text[:40]!r}")
    return int(text)
