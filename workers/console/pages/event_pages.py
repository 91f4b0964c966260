"""Events: found by words, one of them on its whole way with each attempt, hash and proof, and all of one subject."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from starlette.responses import RedirectResponse, Response

from ops.admin import documents, proofs, timeline
from ops.admin.access.reveals import note_reveal
from ops.admin.read_session import snapshot
from ops.admin.search import events
from ops.admin.search.events import Search
from ops.admin.views import View
from ops.errors import OpsError
from workers.console.call import Call, Refused, existing
from workers.console.pages.filtering import Filter, chosen
from workers.console.pages.layout import render
from workers.console.pages.page_table import Act, Page
from workers.console.pages.questions import by
from workers.console.pages.revealing import reason_of, shown
from workers.console.rendering.filter_words import Field, time, write
from workers.console.rendering.page_addresses import asked, at

ROWS: Final = 50
WINDOW: Final = "24h"  # that is searched unless the words say otherwise
FIELDS: Final = (
    Field("type", "Type", "order.*"),
    Field("subject", "Subject", "order-7"),
    Field("source", "Source", "shop"),
    Field("id", "Event id", "evt_1*"),
    Field("since", "Arrived since", WINDOW),
    Field("until", "Arrived before", "2026-01-31T12:00"),
)
_MAIL: Final = "message/rfc822"


def listed(call: Call) -> Mapping[str, Any] | Response:
    """The events that match, the newest first."""
    wanted = chosen(call, FIELDS)
    if isinstance(wanted, Response):
        return wanted
    base, cursor = at(call.tenant, "events"), call.query.get("cursor")
    values: dict[str, Any] = {"filter": wanted, "base": base, "window": WINDOW, "found": None, "next": None}
    if wanted.error is None:
        search = _search(call, wanted)
        found = events.events(call.console.reads, search, cursor, ROWS)
        # A page that follows is of the same time, which words such as since:2h do not say.
        window = {name: at_ and at_.isoformat() for name, at_ in (("since", search.since), ("until", search.until))}
        values |= {"found": found, "next": found.next and asked(base, q=wanted.words, cursor=found.next, **window)}
    return {**values, "first": asked(base, q=wanted.words) if cursor else None, "bounded": _bounded(wanted)}


def _bounded(wanted: Filter) -> bool:
    """Whether only the last day is searched, because nothing says otherwise."""
    return not any(wanted.text(name) for name in ("since", "until", "id", "subject"))


def _search(call: Call, wanted: Filter) -> Search:
    words = {name: wanted.text(name) for name in ("type", "source", "subject", "id")}
    if "cursor" in call.query:
        since, until = (_fixed(call.query.get(name)) for name in ("since", "until"))
    else:
        since, until = wanted.time("since") or (time(WINDOW) if _bounded(wanted) else None), wanted.time("until")
    return Search(call.tenant, **words, since=since, until=until)


def _fixed(text: str | None) -> datetime | None:
    try:
        return time(text) if text else None
    except ValueError as error:
        raise Refused(422, "filter", str(error)) from error


def one(call: Call) -> Mapping[str, Any]:
    """One event, without its content."""
    return {"event": _event(call), "content": None, "document": None, "proof": None}


def proof(call: Call) -> Mapping[str, Any]:
    """One event with the proof that it is in the published log, made and checked just now."""
    event = _event(call)
    try:
        with snapshot(call.console.reads) as conn:
            made = proofs.prove(conn, call.console.settings, call.tenant, event["subject"] or "", event["seq"], scan=False)
    except OpsError as error:
        return {"event": event, "content": None, "document": None, "proof": {"text": None, "error": str(error)}}
    return {"event": event, "content": None, "document": None, "proof": {"text": made.text, "index": made.index, "error": None}}


def reveal(call: Call) -> Response:
    """One event with its content, once that is in the audit."""
    event, reason = _event(call), reason_of(call)
    about = {"tenant": call.tenant, "chain": event["chain"], "seq": event["seq"], "event": event["id"]}
    note_reveal(call.console.acts, by(call, reason), "content", about)
    found = events.content(call.console.reads, call.console.settings, call.tenant, UUID(event["chain"]), event["seq"])
    if found is None:
        raise Refused(404, "gone", "its content is gone: it was erased, or the blob store has lost it")
    values = {"event": event, "content": shown(*found), "document": _document(call, event, found[1]), "proof": None}
    return render(call, "event.html", values)


def subject(call: Call) -> Mapping[str, Any] | Response:
    """The entries of the subject after a number, the oldest first."""
    wanted = call.query.get("subject", "")
    if not wanted:
        return RedirectResponse(at(call.tenant, "events"), 303)
    after = call.query.get("after", "")
    start = int(after) if after.isdecimal() and len(after) < 19 else -1
    reads = call.console.reads
    found = list(
        timeline.timeline(reads, call.console.settings, call.tenant, wanted, start, ROWS + 1, bodies=False, scan=False)
    )
    base = at(call.tenant, "subjects")
    return {
        "subject": wanted,
        "subject_words": write({"subject": wanted}),
        "entries": found[:ROWS],
        "next": asked(base, subject=wanted, after=found[ROWS - 1]["seq"]) if len(found) > ROWS else None,
        "first": asked(base, subject=wanted) if start >= 0 else None,
        "erasing": call.console.settings.erase_requests,
    }


def _document(call: Call, event: View, media_type: str) -> Any:
    """What was read from a mail; None if it is none, or its document is not made yet."""
    if media_type != _MAIL or event["id"] is None:
        return None
    try:
        return documents.find_mail(call.console.reads, call.console.settings, call.tenant, event["id"]).document
    except OpsError:
        return None


def _event(call: Call) -> View:
    try:
        chain = UUID(str(call.path["chain"]))
    except ValueError:
        raise Refused(404, "not_found", "there is no such event") from None
    return existing(events.event(call.console.reads, call.tenant, chain, int(call.path["seq"])), "event")


_PATH: Final = "/t/{tenant}/events/{chain}/{seq:int}"
PAGES: Final = [
    Page("/t/{tenant}/events", "viewer", "events.html", listed),
    Page(_PATH, "viewer", "event.html", one),
    Page(f"{_PATH}/proof", "viewer", "event.html", proof),
    Page("/t/{tenant}/subjects", "viewer", "subject.html", subject),
]
ACTS: Final = [Act(f"{_PATH}/content", "operator", reveal)]
