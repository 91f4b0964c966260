"""The first page: what needs somebody, four numbers, the route, and the last hour. And the ways from there: tenants, any id."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from starlette.responses import RedirectResponse, Response

from ops.admin import figures
from ops.admin.configured import configured
from ops.admin.search import events
from ops.admin.status import connected
from ops.admin.status.queue_watch import SeenQueues
from ops.admin.verifying.last_found import last_found
from ops.admin.views import View
from schemas.access import EVERYWHERE
from workers.amqp.dramatiq_broker import QUEUE
from workers.console.call import Call
from workers.console.pages.ledger_pages import WORDS
from workers.console.pages.page_table import Page
from workers.console.rendering.figures_in_words import number
from workers.console.rendering.filter_words import write
from workers.console.rendering.page_addresses import at


def first(call: Call) -> Mapping[str, Any] | Response:
    """Where one who has logged in begins: at all tenants, at the only one, or at the list of those that he sees."""
    asks = call.principal
    if asks.tenant is not None:
        return RedirectResponse(at(asks.tenant), 303)
    return RedirectResponse("/tenants", 303) if asks.role_in(EVERYWHERE) is None else home(call)


def home(call: Call) -> Mapping[str, Any]:
    """How a tenant does, or all of them."""
    tenant = call.path.get("tenant")
    reads = call.console.reads
    shown = figures.home(reads, tenant)
    breakers = [each for each in shown["problems"] if each["kind"] == "breaker"]
    ledger = last_found(reads, tenant)
    # Queues and processes are of all tenants, and so shown to those who see all.
    seen = None if tenant is not None else call.console.queues.look()
    return {
        "figures": shown,
        "problems": [*shown["problems"], *(_of_broker(seen) if seen else ())],
        "breakers": breakers,
        "ledger": ledger,
        "words": WORDS,
        "place": _place,
        "last": _last,
        "seen": seen,
        "delivery_queue": QUEUE,
        "processes": None if tenant is not None else connected.processes(reads),
    }


def _of_broker(seen: SeenQueues) -> Iterator[View]:
    """What is wrong with the broker, as far as the console can tell."""
    about = {"since": None, "page": "queues", "tenant": None, "name": None}
    if seen.configured and seen.queues is None:
        act = "see whether it runs; waxseal doctor says more"
        yield {**about, "kind": "broker", "what": "RabbitMQ does not answer the console", "act": act}
    for name, count in seen.unserved:
        what = f"{number(count)} {'message waits' if count == 1 else 'messages wait'} in {name}, and no process takes them"
        yield {**about, "kind": "queue", "what": what, "act": "start the process that does"}


def _place(problem: View) -> str:
    """The page of what is wrong."""
    tenant, name = problem["tenant"], problem["name"]
    match problem["page"]:
        case "endpoint":
            return at(tenant, "endpoints", name)
        case "mailbox":
            return at(tenant, "mailboxes", name)
        case "dead_letters":
            return at(tenant, "dead")
        case "ledger":
            return at(tenant, "ledger")
        case "queues":
            return "#queues"
    return at(tenant, "events") if tenant is not None else at(None, "tenants")


def _last(series: Sequence[int | None]) -> int | None:
    """The last whole minute of which something is known."""
    return next((each for each in reversed(series[:-1]) if each is not None), None)


def tenants(call: Call) -> Mapping[str, Any]:
    """The tenants that one sees."""
    found = configured.tenants(call.console.acts)
    return {"tenants": [each for each in found if call.principal.role_in(each["name"]) is not None]}


def find(call: Call) -> Mapping[str, Any] | Response:
    """What has an id: its page, if it is one thing only."""
    wanted = call.query.get("id", "").strip()[:300]
    found = [(each, address) for each in _located(call, wanted) if (address := _address(each)) is not None]
    if len(found) == 1:
        return RedirectResponse(found[0][1], 303)
    return {"wanted": wanted, "found": found, "words": write({"id": f"{wanted}*"})}


def _located(call: Call, wanted: str) -> Sequence[View]:
    if not wanted:
        return ()
    reads, tenant = call.console.reads, call.path.get("tenant")
    everything = tenant is None and call.principal.role_in(EVERYWHERE) is not None
    places = [None] if everything else [tenant] if tenant is not None else list(call.principal.grants)
    return [each for place in places for each in events.locate(reads, place, wanted)]


def _address(found: View) -> str | None:
    tenant = found["tenant"]
    match found["kind"]:
        case "event":
            return at(tenant, "events", found["chain"], found["seq"])
        case "chain":
            return at(tenant, "subjects", subject=found["subject"])
        case "delivery":
            return at(tenant, "deliveries", found["id"])
        case "dead_letter":
            return at(tenant, "dead", found["id"])
        case "job":
            return at(tenant, "jobs", found["id"])
    return None


PAGES: Final = [
    Page("/", None, "home.html", first),
    Page("/t/{tenant}", "viewer", "home.html", home),
    Page("/t/{tenant}/", "viewer", "home.html", home),
    Page("/tenants", None, "tenants.html", tenants),
    Page("/find", None, "find.html", find),
    Page("/t/{tenant}/find", "viewer", "find.html", find),
]
