"""Room 6, fan out: who is owed an entry. Pure."""

from collections.abc import Iterable, Mapping

from pipeline.filters import Predicate, compile_filter
from schemas.catalog import Catalog
from schemas.delivery import Planned
from schemas.endpoint import Endpoint
from schemas.entry import Entry

Subscriptions = Mapping[str, tuple[tuple[Endpoint, Predicate], ...]]


def subscriptions(catalog: Catalog) -> Subscriptions:
    """The catalog's endpoints by tenant, each with its compiled filter; made once per catalog version."""
    return {
        tenant: tuple((endpoint, compile_filter(endpoint.filter)) for endpoint in catalog.subscribers(tenant))
        for tenant in catalog.tenants
    }


def plan(entries: Iterable[Entry], subscribed: Subscriptions) -> list[Planned]:
    """One delivery for each entry and each endpoint of its tenant whose filter matches.

    What a disabled endpoint is owed is planned as `paused`: kept, not lost.
    """
    return [
        Planned(
            endpoint.id,
            endpoint.tenant,
            entry.chain_id,
            entry.seq,
            len(entry.event.body),
            "pending" if endpoint.state == "active" else "paused",
        )
        for entry in entries
        for endpoint, matches in subscribed.get(entry.event.tenant, ())
        if matches(entry.event.attributes)
    ]
