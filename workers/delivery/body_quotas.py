"""How many bytes of bodies a deliver process holds in memory, in all and for one endpoint."""

from collections import defaultdict
from collections.abc import Callable, Container
from functools import partial
from typing import Final

from schemas.blob import LARGEST_INLINE
from workers.delivery.weighted_semaphore import WeightedSemaphore

MAX_BYTES: Final = 64 * 1024 * 1024  # of bodies in memory, half for blobs, so that other bodies do not wait for the blob store
SMALL: Final = 16 * 1024  # bytes; bodies up to this size, as most are, never queue behind larger ones
MAX_SMALL: Final = 16 * 1024 * 1024  # bytes of small bodies in memory, in addition
MAX_SHARE: Final = 4 * 1024 * 1024  # bytes for one endpoint, so that large bodies for one that hangs do not block others


class BodyQuotas:
    """On one event loop."""

    def __init__(self) -> None:
        self._small = WeightedSemaphore()
        self._inline = WeightedSemaphore()
        self._blobs = WeightedSemaphore()
        self._shares: defaultdict[int, WeightedSemaphore] = defaultdict(WeightedSemaphore)

    async def enter(self, endpoint_id: int, size: int, deadline: float) -> Callable[[], None] | None:
        """Take a body's bytes from the endpoint's quota, then from that of all endpoints.

        Waits until the loop's clock shows `deadline`; gives the call that returns the bytes, or None.
        """
        share = self._shares[endpoint_id]
        if not (share.try_enter(size, MAX_SHARE) or await share.enter(size, MAX_SHARE, deadline)):
            return None
        quota, most = self._quota(size)
        try:
            admitted = quota.try_enter(size, most) or await quota.enter(size, most, deadline)
        except BaseException:
            share.leave(size)
            raise
        if not admitted:
            share.leave(size)
            return None
        return partial(_leave, quota, share, size)

    def keep(self, endpoint_ids: Container[int]) -> None:
        """Drop the quotas of all other endpoints, which must hold nothing."""
        for id_ in [each for each in self._shares if each not in endpoint_ids]:
            del self._shares[id_]

    def _quota(self, size: int) -> tuple[WeightedSemaphore, int]:
        """The quota for bodies of `size` bytes, and its limit in bytes."""
        if size <= SMALL:
            return self._small, MAX_SMALL
        return (self._inline if size <= LARGEST_INLINE else self._blobs), MAX_BYTES // 2


def _leave(quota: WeightedSemaphore, share: WeightedSemaphore, size: int) -> None:
    quota.leave(size)
    share.leave(size)
