"""Deliveries: by state and endpoint, and one of them with each of its attempts."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from ops.admin.access.reveals import note_reveal
from ops.admin.search import deliveries
from ops.admin.search.deliveries import STATES
from ops.admin.views import View
from workers.console.call import Call, existing
from workers.console.pages.filtering import chosen
from workers.console.pages.layout import render
from workers.console.pages.page_table import Act, Page
from workers.console.pages.questions import by
from workers.console.pages.revealing import reason_of
from workers.console.rendering.filter_words import Field
from workers.console.rendering.page_addresses import asked, at

ROWS: Final = 50
FIELDS: Final = (Field("state", "State", options=STATES), Field("endpoint", "Endpoint", "billing"))


def listed(call: Call) -> Mapping[str, Any] | Response:
    """The deliveries that match, the newest first."""
    wanted = chosen(call, FIELDS)
    if isinstance(wanted, Response):
        return wanted
    base, cursor = at(call.tenant, "deliveries"), call.query.get("cursor")
    values: dict[str, Any] = {"filter": wanted, "base": base, "states": STATES, "found": None, "next": None}
    if wanted.error is None:
        asked_for = {"state": wanted.text("state"), "endpoint": wanted.text("endpoint")}
        found = deliveries.deliveries(call.console.reads, call.tenant, **asked_for, cursor=cursor, limit=ROWS)
        values |= {"found": found, "next": found.next and asked(base, q=wanted.words, cursor=found.next)}
    return {**values, "first": asked(base, q=wanted.words) if cursor else None}


def one(call: Call) -> Mapping[str, Any]:
    """One delivery, without what the endpoint answered."""
    return {"delivery": _delivery(call)}


def reveal(call: Call) -> Response:
    """One delivery with the endpoint's answers, once that is in the audit: they may repeat content."""
    found, reason = _delivery(call), reason_of(call)
    note_reveal(call.console.acts, by(call, reason), "answers", {"tenant": call.tenant, "delivery": found["id"]})
    said = {each["n"]: each["response"] for each in deliveries.answers(call.console.reads, call.tenant, found["id"]) or ()}
    tries = [{**each, "response": said.get(each["n"], "")} for each in found["tries"]]
    return render(call, "delivery.html", {"delivery": {**found, "tries": tries}})


def _delivery(call: Call) -> View:
    return existing(deliveries.delivery(call.console.reads, call.tenant, int(call.path["id"])), "delivery")


_PATH: Final = "/t/{tenant}/deliveries/{id:int}"
PAGES: Final = [
    Page("/t/{tenant}/deliveries", "viewer", "deliveries.html", listed),
    Page(_PATH, "viewer", "delivery.html", one),
]
ACTS: Final = [Act(f"{_PATH}/answers", "operator", reveal)]
