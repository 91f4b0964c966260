"""Cursors: where the next page begins, signed, and good for the same filter only."""

import base64
import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from ops.errors import OpsError

_VERSION: Final = 1
_MAC: Final = 16  # bytes
_LONGEST: Final = 8192  # characters
_PURPOSE: Final = b"waxseal/cursor/v1"


class BadCursor(OpsError):
    """The cursor was altered, is of another filter, or was signed by another key: begin again without it."""


class _Signer:
    """The keys of this process, the newest first. Until it is given some: one of its own, which no other process knows."""

    def __init__(self) -> None:
        self.keys: Sequence[bytes] = (os.urandom(32),)


_SIGNER: Final = _Signer()


def sign_with(fernet_keys: Sequence[str]) -> None:
    """Sign with keys that are derived from these, newest first, so that all processes take each other's cursors."""
    if fernet_keys:
        _SIGNER.keys = tuple(hmac.digest(key.encode(), _PURPOSE, "sha256") for key in fernet_keys)


def encode(key: Sequence[Any], filter_: Mapping[str, Any]) -> str:
    """The cursor of a page that begins after `key`: numbers, texts, times and null."""
    stated = orjson.dumps([_VERSION, list(key)])
    return base64.urlsafe_b64encode(_mac(_SIGNER.keys[0], stated, filter_) + stated).decode().rstrip("=")


def decode(cursor: str, filter_: Mapping[str, Any]) -> list[Any]:
    """The key; times as RFC 3339 texts. Raises `BadCursor`."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raw = b""
    mac, stated = raw[:_MAC], raw[_MAC:]
    if len(cursor) <= _LONGEST and any(hmac.compare_digest(mac, _mac(key, stated, filter_)) for key in _SIGNER.keys):
        version, key = orjson.loads(stated)
        if version == _VERSION:
            return list(key)
    raise BadCursor("this cursor is not of this list: it was altered, or made for another filter; begin at the first page")


def _mac(key: bytes, stated: bytes, filter_: Mapping[str, Any]) -> bytes:
    named = orjson.dumps(dict(filter_), default=str, option=orjson.OPT_SORT_KEYS)
    return hmac.digest(key, hashlib.sha256(named).digest() + stated, "sha256")[:_MAC]
