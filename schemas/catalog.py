"""The catalog: everything configured, as one immutable snapshot with a version."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from schemas.endpoint import Endpoint
from schemas.source import Source


@dataclass(frozen=True, slots=True)
class Catalog:
    """A consistent snapshot. A higher `version` is later; catalogs of equal version are equal."""

    version: int
    tenants: Mapping[str, bytes] = field(repr=False)  # name -> the key of its fingerprints, 32 bytes
    sources: Mapping[tuple[str, str], Source]  # (tenant, name)
    endpoints: Mapping[int, Endpoint]  # by id, with the removed ones, whose remaining deliveries must still be settled
    before_origins: Set[str] = frozenset()  # tenants whose oldest events may have fingerprints without an origin
    retentions: Mapping[str, int] = field(
        default_factory=dict
    )  # seconds for which tenants keep content, of those that have any
    moving: Set[str] = frozenset()  # tenants that leave for another cell, or have left: nothing of theirs is recorded here
    #: Cache: sources by the routing keys of their messages, filled by look-ups.
    places: dict[str, Source] = field(default_factory=dict, init=False, compare=False, repr=False)

    def subscribers(self, tenant: str) -> tuple[Endpoint, ...]:
        """The endpoints of `tenant` that new events are planned for."""
        return tuple(e for e in self.endpoints.values() if e.tenant == tenant and e.state != "removed")


EMPTY = Catalog(version=-1, tenants={}, sources={}, endpoints={})
