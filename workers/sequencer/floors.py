"""Below which id nothing of a tenant is pending any more, so that no search goes through what was deleted there.

PostgreSQL keeps deleted rows, and their places in indexes, for as long as any session holds a snapshot from before: a backup
does so for hours. Without floors the sequencer would go through all of them again and again.
"""

from collections.abc import Iterable, Mapping

from pipeline.store.log.pending import Writers


class Floors:
    """The floor of each tenant: no row at or below it is pending, or will be.

    An id is drawn by a transaction that commits later. So the last id drawn becomes `settled` once all transactions have ended
    that were writing when it was seen, and it becomes the floor of a tenant of whom nothing was pending after that.
    """

    def __init__(self) -> None:
        self._floors: dict[str, int] = {}
        self._seen: Writers | None = None
        self.settled = 0

    @property
    def all(self) -> Mapping[str, int]:
        """The floors of all tenants."""
        return self._floors

    def know(self, tenants: Iterable[str]) -> None:
        """Keep to these tenants; a new one has floor 0."""
        self._floors = {tenant: self._floors.get(tenant, 0) for tenant in tenants}

    def look(self, now: Writers) -> None:
        """Note which ids have been drawn, and which transactions write."""
        if self._seen is not None and now.last_id < self._seen.last_id:  # ids begin anew
            self._floors, self._seen, self.settled = dict.fromkeys(self._floors, 0), None, 0
        elif self._seen is None:
            self._seen = now
        elif now.oldest >= self._seen.next:
            self.settled, self._seen = self._seen.last_id, now

    def drained(self, tenant: str, settled: int) -> None:
        """Note that nothing of the tenant was pending in a transaction that began when `settled` was this."""
        self._floors[tenant] = settled
