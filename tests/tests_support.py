"""What several tests need that is no fixture."""

import time
from collections.abc import Callable
from pathlib import Path

from ops.blobs import Blobs

ROOT = Path(__file__).parents[1]
NO_BLOBS = Blobs("/dev/null/blobs")  # takes nothing and has nothing


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Returns when `condition` is true; fails when it is not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.02)
