"""The places that the rail leads to, for the one who asks and the tenant that is looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from schemas.access import EVERYWHERE, Principal
from workers.console.rendering.page_addresses import at


@dataclass(frozen=True, slots=True)
class Tab:
    """A place in the rail, and the path below which its pages are."""

    title: str
    path: str


_OF_A_TENANT: Final = (
    ("Overview", ()),
    ("Events", ("events",)),
    ("Deliveries", ("deliveries",)),
    ("Dead letters", ("dead",)),
    ("Endpoints", ("endpoints",)),
    ("Sources", ("sources",)),
    ("Mailboxes", ("mailboxes",)),
    ("Ledger", ("ledger",)),
    ("Jobs", ("jobs",)),
    ("Audit", ("audit",)),
)
_OF_ALL: Final = (
    ("Overview", ()),
    ("Tenants", ("tenants",)),
    ("Dead letters", ("dead",)),
    ("Endpoints", ("endpoints",)),
    ("Mailboxes", ("mailboxes",)),
    ("Ledger", ("ledger",)),
    ("Jobs", ("jobs",)),
    ("Audit", ("audit",)),
    ("Configuration", ("configuration",)),
)


def tabs(principal: Principal, tenant: str | None) -> Sequence[Tab]:
    """The places of a tenant, or of all; none of those that it may not see."""
    if tenant is None and principal.role_in(EVERYWHERE) is None:
        return ()
    return [Tab(title, at(tenant, *parts)) for title, parts in (_OF_ALL if tenant is None else _OF_A_TENANT)]
