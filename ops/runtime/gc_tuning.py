"""Tuning of the garbage collector for a process that lives long and allocates much."""

import gc
from typing import Final

_RARELY: Final = (20_000, 20, 20)


def collect_rarely() -> None:
    """Collect a tenth as often from now on: importing modules makes many objects, of which none can be freed."""
    gc.set_threshold(*_RARELY)


def tune() -> None:
    """Collect a tenth as often from now on, and exclude the objects that exist now, such as imported modules, for good.

    By default the collector runs every few hundred allocations, and sometimes over all objects: that takes tens of
    milliseconds, in which the process answers nobody, and for a batch of events as much time as admitting them.
    """
    gc.collect()
    gc.freeze()
    collect_rarely()
