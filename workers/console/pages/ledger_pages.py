"""The ledger: what can be claimed of it, its checkpoints, where they are published and anchored, and its verification."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from ops.admin.jobs import jobs
from ops.admin.log.standing import standing
from ops.admin.verifying.last_found import last_found
from workers.console.call import Call
from workers.console.pages.layout import go
from workers.console.pages.page_table import Act, Page, field
from workers.console.pages.questions import by
from workers.console.rendering.page_addresses import at

#: What each word means, from the weakest to the strongest; each includes those before it.
WORDS: Final = {
    "none": "nothing can be claimed",
    "chained": "every entry is linked to the one before it, and none was altered",
    "sealed": "a signed checkpoint covers what was recorded",
    "published": "that checkpoint can be read outside the database",
    "anchored": "somebody else's clock or register has seen it",
    "witnessed": "somebody else has signed that it only grows",
}


def whole(call: Call) -> Mapping[str, Any]:
    """What can be claimed of each tenant's ledger, and what the last verification found."""
    return {**last_found(call.console.reads, None), "logs": (), "words": WORDS}


def one(call: Call) -> Mapping[str, Any]:
    """The same of one tenant, with its log."""
    logs = standing(call.console.reads, call.console.settings, call.tenant)
    return {**last_found(call.console.reads, call.tenant), "logs": list(reversed(logs)), "words": WORDS}


def verify(call: Call) -> Response:
    """Start a verification, of a subject if one is named."""
    tenant = call.path.get("tenant")
    arguments = {"subject": subject} if (subject := field(call, "subject")) else {}
    id_ = jobs.start(call.console.acts, "verify", tenant, arguments, by(call))
    return go(call, at(tenant, "jobs", id_), "The verification has begun.")


PAGES: Final = [
    Page("/ledger", "viewer", "ledger.html", whole),
    Page("/t/{tenant}/ledger", "viewer", "ledger.html", one),
]
ACTS: Final = [Act("/ledger/verify", "operator", verify), Act("/t/{tenant}/ledger/verify", "operator", verify)]
