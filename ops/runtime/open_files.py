"""The limit of open files, which systemd and shells set to 1,024 by default."""

import resource
import sys
from contextlib import suppress
from typing import Final

_MOST: Final = 1 << 20  # the kernel's own limit (fs.nr_open), unless it was changed


def allow(wanted: int = sys.maxsize) -> int:
    """Raise this process's limit to `wanted`, or as far as is permitted; give the limit that holds then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = hard if hard != resource.RLIM_INFINITY and hard < wanted else min(wanted, _MOST)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
