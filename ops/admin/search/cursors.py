"""Cursors of pages: where a page ended, and of which filter."""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from ops.errors import OpsError

_VERSION: Final = 1
_LONGEST: Final = 2000


class BadCursor(OpsError):
    """A cursor that was altered, or belongs to another filter."""


def encode(key: Sequence[Any], filter_: Mapping[str, Any]) -> str:
    """The cursor of a page that ended at `key`."""
    return base64.urlsafe_b64encode(orjson.dumps([_VERSION, _mark(filter_), list(key)])).decode().rstrip("=")


def decode(cursor: str, filter_: Mapping[str, Any]) -> list[Any]:
    """The key that the cursor holds. Raises `BadCursor`."""
    refused = BadCursor("this cursor is not of a page with these filters: start without one")
    try:
        version, mark, key = orjson.loads(base64.b64decode(cursor[:_LONGEST] + "=" * (-len(cursor) % 4), b"-_", validate=True))
    except (ValueError, TypeError, binascii.Error):
        raise refused from None
    if version != _VERSION or mark != _mark(filter_) or not isinstance(key, list):
        raise refused
    return key


def _mark(filter_: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(dict(filter_), default=str, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
