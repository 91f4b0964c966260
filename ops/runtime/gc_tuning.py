"""The garbage collector of a process that lives long and allocates much."""

import gc


def calm() -> None:
    """Collects a tenth as often from now on, and never again among what was imported until now.

    By default every few hundred objects are searched for cycles, and sometimes all there are: tens of milliseconds, in which
    nobody is answered, and for a batch of events as much time as admitting them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
