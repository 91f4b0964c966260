"""The catalog: everything configured, as one immutable snapshot with a version."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from schemas.endpoint import Endpoint
from schemas.source import Source


@dataclass(frozen=True, slots=True)
class Catalog:
    """A consistent snapshot. A higher `version` is a later one; equal versions are equal catalogs."""

    version: int
    tenants: Mapping[str, bytes] = field(repr=False)  # name -> key of its fingerprints, 32 bytes
    sources: Mapping[tuple[str, str], Source]  # (tenant, name)
    endpoints: Mapping[int, Endpoint]  # by id; removed ones included, for their remaining deliveries
    before_origins: Set[str] = frozenset()  # tenants whose oldest events may be recorded under fingerprints without an origin
    #: Sources by the routing keys of their messages, as they are looked up.
    places: dict[str, Source] = field(default_factory=dict, init=False, compare=False, repr=False)

    def subscribers(self, tenant: str) -> tuple[Endpoint, ...]:
        """The endpoints of `tenant` that new events are planned for."""
        return tuple(e for e in self.endpoints.values() if e.tenant == tenant and e.state != "removed")


EMPTY = Catalog(version=-1, tenants={}, sources={}, endpoints={})
