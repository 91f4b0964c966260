"""The audit: who did what, when, on what and how often; and what the system did by itself."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from ops.admin import history
from workers.console.call import Call
from workers.console.pages.filtering import chosen
from workers.console.pages.page_table import Page
from workers.console.rendering.filter_words import Field
from workers.console.rendering.page_addresses import asked, at

ROWS: Final = 50
_NO_END: Final = 2**62
FIELDS: Final = (Field("since", "Since", "24h"), Field("until", "Before", "2026-01-31T12:00"))


def acts(call: Call) -> Mapping[str, Any] | Response:
    """The acts of people and programs, the newest first."""
    return _page(call, "acts")


def events(call: Call) -> Mapping[str, Any] | Response:
    """What the system noted by itself, such as a breaker that opened."""
    return _page(call, "events")


def _page(call: Call, what: str) -> Mapping[str, Any] | Response:
    wanted = chosen(call, FIELDS)
    if isinstance(wanted, Response):
        return wanted
    tenant = call.path.get("tenant")
    base = at(tenant, "audit", *(("events",) if what == "events" else ()))
    given = call.query.get("before", "")
    before = int(given) if given.isdecimal() and len(given) < 19 else _NO_END
    found: list[Any] = []
    if wanted.error is None:
        read = history.acts_page if what == "acts" else history.events_page
        found = read(call.console.reads, tenant, wanted.time("since"), wanted.time("until"), before, ROWS + 1)
    more = found[ROWS - 1]["id"] if len(found) > ROWS else None
    return {
        "what": what,
        "filter": wanted,
        "rows": found[:ROWS],
        "base": base,
        "next": more and asked(base, q=wanted.words, before=more),
        "first": asked(base, q=wanted.words) if before != _NO_END else None,
    }


PAGES: Final = [
    page
    for under in ("", "/t/{tenant}")
    for page in (
        Page(f"{under}/audit", "viewer", "audit.html", acts),
        Page(f"{under}/audit/events", "viewer", "audit.html", events),
    )
]
