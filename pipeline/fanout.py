"""Step 6, fan out: which endpoints an entry is delivered to. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from uuid import UUID

from pipeline.delivery.filters import Predicate, compile_filter
from schemas.catalog import Catalog
from schemas.config.mailbox_kinds import MAIL_KINDS
from schemas.delivery import Planned
from schemas.endpoint import Endpoint
from schemas.entry import Entry
from schemas.mailbox import BACKFILL, DELIVER_BACKFILL

Subscriptions = Mapping[str, tuple[tuple[Endpoint, Predicate], ...]]


def subscriptions(catalog: Catalog) -> Subscriptions:
    """The catalog's endpoints by tenant, each with its compiled filter. Make it once for each catalog version.

    No filter matches mails from before a mailbox was first read, if the mailbox has `deliver_backfill: false`.
    """
    return {
        tenant: tuple(
            (endpoint, _unmuted(compile_filter(endpoint.filter), _muted(catalog, tenant)))
            for endpoint in catalog.subscribers(tenant)
        )
        for tenant in catalog.tenants
    }


def plan(entries: Iterable[Entry], subscribed: Subscriptions) -> list[Planned]:
    """One delivery for each entry and each endpoint of its tenant whose filter matches.

    Deliveries to a disabled endpoint are planned as `paused`: kept, not lost.
    """
    return [
        Planned(
            endpoint.id,
            endpoint.tenant,
            entry.chain_id,
            entry.seq,
            len(entry.event.body),
            "pending" if endpoint.state == "active" else "paused",
            endpoint.ordered,
        )
        for entry in entries
        for endpoint, matches in subscribed.get(entry.event.tenant, ())
        if matches(entry.event.attributes)
    ]


def pairs(planned: Iterable[Planned]) -> set[tuple[int, UUID]]:
    """The pairs of endpoint and chain in which order matters."""
    return {(each.endpoint_id, each.chain_id) for each in planned if each.ordered}


def in_turn(planned: Sequence[Planned], busy: Collection[tuple[int, UUID]]) -> Sequence[Planned]:
    """Makes all but the first delivery of each ordered endpoint and chain wait; the first one too if the pair is `busy`."""
    taken = set(busy)
    turned = []
    for each in planned:
        pair = (each.endpoint_id, each.chain_id)
        waits = each.ordered and each.state == "pending" and pair in taken
        turned.append(replace(each, waits=True) if waits else each)
        if each.ordered:
            taken.add(pair)
    return turned


def _muted(catalog: Catalog, tenant: str) -> Set[str]:
    return {
        source.name
        for source in catalog.sources.values()
        if source.tenant == tenant and source.kind in MAIL_KINDS and source.options.get(DELIVER_BACKFILL) == "false"
    }


def _unmuted(matches: Predicate, muted: Set[str]) -> Predicate:
    if not muted:
        return matches
    return lambda event: not (event.get(BACKFILL) == "true" and event["source"] in muted) and matches(event)
