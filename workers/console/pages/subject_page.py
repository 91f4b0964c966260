"""The timeline of one subject: its entries in their order, linked by their hashes."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import RedirectResponse, Response

from ops.admin import timeline
from workers.console.call import Call
from workers.console.pages.page_table import Page
from workers.console.rendering.filter_words import write
from workers.console.rendering.page_addresses import asked, at

ROWS: Final = 50


def one(call: Call) -> Mapping[str, Any] | Response:
    """The entries of the subject after a number, the oldest first."""
    subject = call.query.get("subject", "")
    if not subject:
        return RedirectResponse(at(call.tenant, "events"), 303)
    after = call.query.get("after", "")
    start = int(after) if after.isdecimal() and len(after) < 19 else -1
    reads = call.console.reads
    found = list(timeline.timeline(reads, call.console.settings, call.tenant, subject, start, ROWS + 1, bodies=False))
    base = at(call.tenant, "subjects")
    return {
        "subject": subject,
        "subject_words": write({"subject": subject}),
        "entries": found[:ROWS],
        "next": asked(base, subject=subject, after=found[ROWS - 1]["seq"]) if len(found) > ROWS else None,
        "first": asked(base, subject=subject) if start >= 0 else None,
    }


PAGES: Final = [Page("/t/{tenant}/subjects", "viewer", "subject.html", one)]
