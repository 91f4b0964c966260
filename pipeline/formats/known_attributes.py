"""The functions of `pipeline.formats.cloudevents`, with caches and fast paths for what most messages of a sender share."""

import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from pipeline.formats import cloudevents

_KNOWN: Final[set[tuple[str, ...]]] = set()  # valid sequences of attribute names
_MOST: Final = 1000

_PLAIN_UTC: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:[0-5]\d(?:\.\d{1,6})?(?:Z|\+00:00)", re.ASCII)

media_type = lru_cache(1000)(cloudevents.media_type)


def from_headers(headers: Mapping[str, Any]) -> dict[str, str]:
    """As `cloudevents.from_headers`."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        attribute = _attribute(name)
        if attribute is None:
            continue
        if type(value) is str:
            found[attribute] = value
        else:
            found.update(cloudevents.from_headers({name: value}))
    return found


def instant(value: str) -> datetime:
    """As `cloudevents.instant`."""
    if _PLAIN_UTC.fullmatch(value):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    return cloudevents.instant(value)


def check(attributes: Mapping[str, str]) -> None:
    """As `cloudevents.check`."""
    names = tuple(attributes)
    if names in _KNOWN and attributes.get("specversion", "1.0") == "1.0":
        values = attributes.values()
        every = "".join(values)
        if every.isprintable() and (len(every) <= cloudevents.MAX_VALUE or max(map(len, values)) <= cloudevents.MAX_VALUE):
            return
    cloudevents.check(attributes)
    if len(_KNOWN) >= _MOST:
        _KNOWN.clear()
    _KNOWN.add(names)


@lru_cache(1000)
def _attribute(header: str) -> str | None:
    """The attribute that a header of that name carries, if any."""
    return next(iter(cloudevents.from_headers({header: ""})), None)
