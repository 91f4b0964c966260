"""Sources: what comes in, by which address and rules."""

from collections.abc import Mapping
from typing import Any, Final

from ops.admin import configured
from pipeline.sources import AMQP
from workers.console.call import Call
from workers.console.pages.page_table import Page


def listed(call: Call) -> Mapping[str, Any]:
    """The tenant's sources."""
    return {"sources": configured.sources(call.console.acts, call.tenant), "amqp": AMQP}


PAGES: Final = [Page("/t/{tenant}/sources", "viewer", "sources.html", listed)]
