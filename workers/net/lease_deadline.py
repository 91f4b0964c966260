"""The end of a delivery's lease, as the sending process measures it, and the check just before sending."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

#: Runs on while the machine is suspended or the process is stopped, and cannot be set.
_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class LeaseEnded(Exception):
    """The lease ended before anything was sent: another process may be sending the delivery by now."""


class LeaseEnd(NamedTuple):
    """The end of a lease by two clocks, whichever reaches it first.

    A wall clock that is set back would prolong the lease, and in a paused virtual machine it may stand still until it is set.
    """

    until: float  # in Unix seconds
    deadline: float  # in seconds since the machine was booted

    @property
    def is_past(self) -> bool:
        """Whether the lease has ended, so that the delivery is no longer ours."""
        return time.time() >= self.until or time.clock_gettime(_BOOT_CLOCK) >= self.deadline


def lease_end(until: float) -> LeaseEnd:
    """The end of a lease that ends at `until`, in Unix seconds."""
    return LeaseEnd(until, time.clock_gettime(_BOOT_CLOCK) + until - time.time())


Check = Callable[[], None]
"""Called just before anything is sent that the other side would act on. Raises `LeaseEnded`."""


def unleased() -> None:
    """The check for messages without a lease: no other process can be sending them."""
