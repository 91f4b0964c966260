"""Endpoints: how each of them does, on which terms, and what it was not given yet."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from ops.admin import endpoints, figures
from ops.admin.bulk import Named
from ops.admin.configured import configured
from ops.admin.views import View
from ops.errors import OpsError
from workers.console.call import Call, Refused
from workers.console.pages.page_table import Page
from workers.console.rendering.figures_in_words import span

RANGES: Final = {"1h": 1, "24h": 24, "7d": 168}  # hours


def listed(call: Call) -> Mapping[str, Any]:
    """The endpoints with what matters of each: whether it takes what it is sent, and what it is owed."""
    found = list(endpoints.list_endpoints(call.console.reads, call.path.get("tenant")))
    return {"endpoints": found}


def one(call: Call) -> Mapping[str, Any]:
    """One endpoint."""
    asked = call.query.get("range", "1h")
    hours = RANGES.get(asked, 1)
    return {
        **known(call),
        "range": asked if asked in RANGES else "1h",
        "ranges": list(RANGES),
        "plots": plots(figures.endpoint_figures(call.console.reads, call.tenant, str(call.path["name"]), hours)),
    }


def known(call: Call) -> Mapping[str, Any]:
    """Its state and its terms. An endpoint of another tenant is not found."""
    named = Named(call.tenant, str(call.path["name"]))
    try:
        shown = endpoints.show_endpoint(call.console.reads, named)
        terms = configured.endpoint(call.console.acts, named.tenant, named.name)
    except OpsError as error:
        raise Refused(404, "not_found", str(error)) from error
    return {"endpoint": shown, "terms": terms, "schedule": schedule(terms["retry"])}


def schedule(retry: Sequence[float]) -> list[tuple[int, str, str]]:
    """The tries in words: number, wait before it, and time since the first."""
    sums = list(accumulate(retry))
    return [(1, "at once", "0 s"), *((at + 2, span(wait), span(sums[at])) for at, wait in enumerate(retry))]


def plots(found: View | None) -> Mapping[str, Any] | None:
    """Attempts by outcome, and the times they took; None if nothing was tried."""
    if found is None or not found["tried"]["count"]:
        return None
    series = found["series"]
    failed = [_sum(pair) for pair in zip(series["retry"], series["dead"], strict=True)]
    times = {part: [None if each is None else each / 1000 for each in series[f"{part}_ms"]] for part in ("p50", "p95")}
    return {"delivered": series["delivered"], "failed": failed, "step": found["step"], **times}


def _sum(pair: tuple[int | None, int | None]) -> int | None:
    return None if None in pair else sum(each or 0 for each in pair)


PAGES: Final = [
    Page("/endpoints", "viewer", "endpoints.html", listed),
    Page("/t/{tenant}/endpoints", "viewer", "endpoints.html", listed),
    Page("/t/{tenant}/endpoints/{name}", "viewer", "endpoint.html", one),
]
