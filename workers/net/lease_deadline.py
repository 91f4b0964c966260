"""When the lease on a delivery ends, as the process that sends it can tell, and the check that is made before it sends."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

#: Goes on while the machine sleeps and while the process is stopped, and nobody sets it.
_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class LeaseEnded(Exception):
    """The lease ended before anything was sent: somebody else may be sending it by now."""


class LeaseEnd(NamedTuple):
    """The end of a lease by two clocks, whichever is there first.

    A clock that is set back would make a lease longer, and that of a guest which was paused may stand still until it is set.
    """

    until: float  # in Unix seconds
    deadline: float  # in seconds of the machine's clock since it was booted

    @property
    def is_past(self) -> bool:
        """Whether the delivery is not ours any more."""
        return time.time() >= self.until or time.clock_gettime(_BOOT_CLOCK) >= self.deadline


def lease_end(until: float) -> LeaseEnd:
    """The end of a lease that ends at `until`, in Unix seconds."""
    return LeaseEnd(until, time.clock_gettime(_BOOT_CLOCK) + until - time.time())


Check = Callable[[], None]
"""Called just before anything is sent that the other side would act on. Raises `LeaseEnded`."""


def unleased() -> None:
    """The check of what nobody else could be sending."""
